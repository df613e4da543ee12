"""The words around memories and questions.  engine/prompt.c puts together exactly the same ids
(PROMPT_VERSION there); chosen by eval/wrapper_table.md.

PREFIX ends with the opening of a user turn, so that blocks, all of one shape, and then the question
follow it.  <|...|> are special tokens; everything between two of them is encoded as one text.
"""
VERSION = 1
BLOCK = "Note: {title}. {text}\n"
QUESTION = "Question: {question}<|im_end|>\n"
HEADER = "<|im_start|>assistant\n"
NOT_HELD = "The notes do not say."

EXAMPLES = (
    ("Larkspur Bridge — architect", "Larkspur Bridge was designed by Ines Halloran.",
     "Who designed Larkspur Bridge?", "Ines Halloran"),
    ("Tarn release", "Release note: Tarn 4.2.7 is out and replaces 4.2.6.",
     "What is the latest release of the Tarn 4.2 line?", "4.2.7"),
    ("Oakfield Museum — History", "The museum was in Castle Yard at first. In 1931 it moved to "
     "Mill Street, where it stayed until 1958.",
     "Where was the Oakfield Museum from 1931 to 1958?", "Mill Street"),
)

PREFIX = ("<|im_start|>system\nAnswer the question from the notes, in a few words.<|im_end|>\n"
          + "".join("<|im_start|>user\n" + BLOCK.format(title=title, text=text)
                    + QUESTION.format(question=question) + HEADER + answer + "<|im_end|>\n"
                    for title, text, question, answer in EXAMPLES)
          + "<|im_start|>user\n")


def block(title, text):
    """One note; without a title it begins with its text."""
    return BLOCK.format(title=title, text=text) if title else f"Note: {text}\n"


def about(question, date):
    """The question when it is about a day (--about): the day stands behind it."""
    return f"{question} (as of {date})" if date else question
