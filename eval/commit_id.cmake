# eval/commit_id.cmake: writes the source of eval_commit() for the checkout as it is now, and only
# when that has changed. cmake -D SOURCE_DIR=... -D OUT=... -P commit_id.cmake
execute_process(COMMAND git -c safe.directory=* -C ${SOURCE_DIR} describe --always --dirty --abbrev=40 --exclude=*
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR NOT commit)
  set(commit "unknown")
endif()
set(text "#include \"eval/results.h\"\n\nconst char *eval_commit(void)\n{\n    return \"${commit}\";\n}\n")
set(old "")
if(EXISTS ${OUT})
  file(READ ${OUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUT} "${text}")
endif()
