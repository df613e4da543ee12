/* eval/report_style.h: the look of the page. Colours of the arms are those of Okabe & Ito (2008),
 * darkened where thin lines need it; every arm also has a shape and its name beside it. The text is
 * XML content: no '<', no '&'. */
#ifndef EVAL_REPORT_STYLE_H
#define EVAL_REPORT_STYLE_H

static const char report_style[] =
    ":root{--paper:#fff;--ink:#1c1e21;--soft:#5f656d;--rule:#d9dce0;--wash:#f5f6f7;"
    "--k0:#767c85;--k1:#7b5ea7;--k2:#d55e00;--k3:#00865f;--k4:#0067a5;--k5:#9a7500;"
    "--k6:#b3487f;--k7:#7d4b2a;--k8:#3a9bd0;--k9:#3f444a;--k10:#c98a00;--k11:#5d8a1f}\n"
    "@media (prefers-color-scheme:dark){:root{--paper:#16181b;--ink:#e6e8ea;--soft:#a2a8b0;"
    "--rule:#373b41;--wash:#1f2226;--k0:#9aa1aa;--k1:#b39ddb;--k2:#ff8f4a;--k3:#3fc79a;"
    "--k4:#5ab4f0;--k5:#d6b23c;--k6:#e58fb9;--k7:#c79270;--k8:#8fd0f5;--k9:#c3c8ce;"
    "--k10:#ffc04d;--k11:#a3cc66}}\n"
    "body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:60rem;background:var(--paper);"
    "color:var(--ink);font:16px/1.5 system-ui,'Segoe UI',Roboto,'Liberation Sans',sans-serif}\n"
    "h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem}\n"
    "h2{font-size:1.45rem;margin:3rem 0 .2rem;padding-top:1rem;border-top:2px solid var(--ink)}\n"
    "h3{font-size:1.08rem;margin:2.2rem 0 .6rem}\n"
    "p{max-width:44rem;margin:.5rem 0}\n"
    ".lead{font-size:1.12rem}\n.note,figcaption,.under{color:var(--soft);font-size:.86rem}\n"
    "figure{margin:.6rem 0 1.2rem;break-inside:avoid}\nfigcaption{margin-top:.15rem}\n"
    ".panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));"
    "gap:.4rem 2rem}\n"
    ".panels figure{display:flex;flex-direction:column-reverse;justify-content:flex-end}\n"
    ".panels figcaption{color:var(--ink);font-weight:600;margin-bottom:.1rem}\n"
    "svg.plot{display:block;width:100%;height:auto;font:13px system-ui,'Segoe UI',Roboto,"
    "'Liberation Sans',sans-serif}\n"
    "svg text{fill:var(--ink)}svg .tick,svg .side{fill:var(--soft)}svg .side{font-style:italic}\n"
    "svg .name{fill:var(--ink)}svg .series{font-weight:600}svg .value{font-variant-numeric:"
    "tabular-nums}\n"
    "svg .axis{stroke:var(--soft);stroke-width:1}svg .grid{stroke:var(--rule);stroke-width:1}\n"
    "svg .line{fill:none;stroke-width:2;stroke-linejoin:round}svg .bar{stroke-width:1.4;"
    "opacity:.75}\n"
    "svg .lead{stroke-width:1;opacity:.5}svg .whisker{stroke:var(--ink);stroke-width:1.4}\n"
    "svg .event{stroke:var(--k5);stroke-width:1.2;stroke-dasharray:3 3}svg .soft{opacity:.55}\n"
    "svg .mark{stroke:var(--paper);stroke-width:1}\n"
    "table{border-collapse:collapse;margin:.6rem 0 1.2rem;font-size:.9rem;"
    "font-variant-numeric:tabular-nums}\n"
    ".scroll{overflow-x:auto}\n"
    "th,td{padding:.28rem .7rem;text-align:right;vertical-align:top;border-bottom:1px solid "
    "var(--rule)}\n"
    "th:first-child,td:first-child{text-align:left;padding-left:0}\n"
    "thead th{border-bottom:1.5px solid var(--ink);vertical-align:bottom}\n"
    "td{white-space:nowrap}td:first-child{white-space:normal}"
    "td.text,th.text{text-align:left}tbody th{font-weight:400}\n"
    "td .under{display:block;font-size:.78rem;white-space:nowrap}\n"
    "b.best{font-weight:700}\n"
    ".words{background:var(--wash);padding:.7rem .9rem;border-radius:.3rem;line-height:1.9;"
    "max-width:none;white-space:pre-wrap}\n"
    ".words mark{background:none;color:inherit;border-bottom:3px solid var(--k5);"
    "font-weight:600}\n"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;font-size:.86rem;"
    "margin:.6rem 0}\ndt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere;"
    "font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:.82rem}\n"
    "@page{size:A4;margin:15mm}\n"
    "@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--rule:#ccc;--wash:#f5f6f7;"
    "--k0:#767c85;--k1:#7b5ea7;--k2:#d55e00;--k3:#00865f;--k4:#0067a5;--k5:#9a7500;"
    "--k6:#b3487f;--k7:#7d4b2a;--k8:#3a9bd0;--k9:#3f444a;--k10:#c98a00;--k11:#5d8a1f}\n"
    "body{font-size:10.5pt;padding:0;max-width:none;print-color-adjust:exact;"
    "-webkit-print-color-adjust:exact}.scroll{overflow:visible}\n"
    "h2,h3{break-after:avoid}tr{break-inside:avoid}svg.plot{max-width:165mm}\n"
    ".panels{grid-template-columns:1fr 1fr}table{font-size:8.5pt}"
    "th,td{padding:.2rem .45rem}}\n";

/* EVAL_COLOURS rules: "k0" paints what it stands on. */
#define REPORT_STYLE_COLOUR                                \
    ".mark.k%zu,rect.k%zu,svg text.k%zu{fill:var(--k%zu)}" \
    ".line.k%zu,.bar.k%zu,.lead.k%zu{stroke:var(--k%zu)}\n"

#endif
