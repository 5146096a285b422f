//! Colours and type: of the page in light and dark, on paper, and of charts in files of their own.
//!
//! The colours of series are those of Okabe and Ito (*Color Universal Design*, 2008), lighter ones on dark ground.

/// The colours of one appearance.
struct Palette {
    paper: &'static str,
    panel: &'static str,
    ink: &'static str,
    muted: &'static str,
    rule: &'static str,
    /// Series in this order; adversaries and attacks are the second.
    series: [&'static str; 6],
    good: &'static str,
    bad: &'static str,
}

const LIGHT: Palette = Palette {
    paper: "#ffffff",
    panel: "#f6f7f9",
    ink: "#1b1f24",
    muted: "#57606a",
    rule: "#dfe3e8",
    series: ["#0072b2", "#d55e00", "#009e73", "#aa4499", "#b07d00", "#3a9bd1"],
    good: "#00694d",
    bad: "#b03a00",
};

const DARK: Palette = Palette {
    paper: "#15181c",
    panel: "#1e2329",
    ink: "#e8eaed",
    muted: "#a3acb6",
    rule: "#343b43",
    series: ["#56b4e9", "#ff9351", "#2fd0a0", "#e3a1cf", "#f0cf65", "#8fa8ff"],
    good: "#3fd6a6",
    bad: "#ff9a5c",
};

const SANS: &str = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";

/// Of a chart in a file of its own. Plain enough for converters that know no variables.
pub(super) fn svg_light() -> String {
    svg(&LIGHT)
}

fn svg(palette: &Palette) -> String {
    let Palette { paper, ink, muted, rule, series, .. } = palette;
    let [c1, c2, ..] = series;
    let mut css = format!(
        ".plot text{{font:13px {SANS};fill:{ink};font-variant-numeric:tabular-nums}}\
         .plot .small{{font-size:11.5px}}.plot .axis-label{{fill:{muted}}}\
         .plot .halo{{paint-order:stroke;stroke:{paper};stroke-width:3px;stroke-linejoin:round}}\
         .plot .paper{{fill:{paper}}}\
         .plot .grid{{stroke:{rule};stroke-width:1}}.plot .axis{{stroke:{muted};stroke-width:1.2;fill:none}}\
         .plot .line{{fill:none;stroke-width:2;stroke-linejoin:round}}\
         .plot .c1{{stroke:{c1}}}.plot .c2{{stroke:{c2}}}\
         .plot .dashed{{stroke-dasharray:7 4}}\
         .plot .band{{fill:{c1};fill-opacity:.2;stroke:none}}\
         .plot .bar{{fill:{c1};stroke:{paper};stroke-width:1}}\
         .plot .point{{fill:{c1};fill-opacity:.75}}.plot .ring{{fill:none;stroke-width:1.3}}.plot .mark{{fill:{paper};stroke:{c1};stroke-width:2}}\
         .plot .guide{{stroke:{muted};stroke-width:1.2;stroke-dasharray:3 4}}\
         .plot .fault{{fill:{muted}}}.plot .fault-ground{{fill:{muted};fill-opacity:.1}}\
         .plot .fault-hatch{{stroke:{muted};stroke-width:1.6;stroke-opacity:.35}}\
         .plot .attack{{fill:{c2}}}.plot .attack-ground{{fill:{c2};fill-opacity:.045}}\
         .plot .attack-hatch{{stroke:{c2};stroke-width:1.2;stroke-opacity:.17}}\
         .plot .link{{fill:none;stroke:{muted};stroke-opacity:.28}}\
         .plot .adversary{{fill:{c2};stroke:{ink};stroke-width:.8}}"
    );
    // Regions have colours of their own, but for that of adversaries.
    for (colour, number) in series.iter().filter(|colour| *colour != c2).zip(1..) {
        css += &format!(".plot .r{number}{{fill:{colour}}}.plot .a{number}{{stroke:{colour};fill:none}}");
    }
    css
}

fn colours(palette: &Palette) -> String {
    let Palette { paper, panel, ink, muted, rule, good, bad, .. } = palette;
    format!(
        ":root{{--paper:{paper};--panel:{panel};--ink:{ink};--muted:{muted};--rule:{rule};--good:{good};--bad:{bad}}}"
    )
}

/// Of the page.
pub(super) fn page() -> String {
    format!(
        "{}{}@media screen and (prefers-color-scheme:dark){{{}{}}}{PAGE}",
        colours(&LIGHT),
        svg(&LIGHT),
        colours(&DARK),
        svg(&DARK)
    )
}

const PAGE: &str = "
:root{color-scheme:light dark}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:84rem;background:var(--paper);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'Liberation Sans',sans-serif}
header p{max-width:52rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.8rem 0 .8rem;padding-bottom:.3rem;border-bottom:1px solid var(--rule)}
h3{font-size:1rem;margin:0 0 .3rem}
p{margin:.4rem 0}
code,pre{font:.87em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}
code{overflow-wrap:anywhere}
pre{background:var(--panel);border:1px solid var(--rule);border-radius:6px;padding:.8rem 1rem;overflow-x:auto;margin:.6rem 0}
.muted,figcaption,.of{color:var(--muted)}
.file{white-space:nowrap}
.verdict{border:1px solid var(--rule);border-left:6px solid var(--good);border-radius:6px;background:var(--panel);
  padding:.8rem 1.1rem;margin:1.4rem 0;font-size:1.15rem;font-weight:600}
.verdict.bad{border-left-color:var(--bad)}
ul.checks{list-style:none;margin:0;padding:0}
ul.checks li{display:grid;grid-template-columns:5.2rem minmax(0,1fr);gap:0 1rem;padding:.6rem 0;border-bottom:1px solid var(--rule)}
ul.checks p{margin:.1rem 0 0;overflow-wrap:anywhere}
.mark{font-weight:700;white-space:nowrap}
.good{color:var(--good)}.bad-text{color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(11.5rem,1fr));gap:.8rem}
.card{background:var(--panel);border:1px solid var(--rule);border-radius:8px;padding:.75rem .9rem}
.card .name{font-size:.85rem;color:var(--muted)}
.card .value{font-size:1.5rem;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
.card .of{font-size:.83rem;line-height:1.4}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,34rem),1fr));gap:2rem 2.2rem;align-items:start}
figure{margin:0;min-width:0}
figure .scroll{overflow-x:auto}
figure svg{display:block;width:100%;min-width:27rem;height:auto}
figcaption{font-size:.88rem;line-height:1.5;margin-top:.3rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .9rem .4rem 0;border-bottom:1px solid var(--rule)}
thead th{color:var(--muted);font-weight:600;font-size:.85rem}
td code{white-space:nowrap}
.hashes td code{white-space:normal}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
.settings{columns:22rem;column-gap:2.5rem}
.settings section{margin-bottom:1.4rem;break-inside:avoid}
.settings th{font-weight:400;color:var(--muted);width:45%}
details summary{cursor:pointer}
footer{margin-top:3rem;color:var(--muted);font-size:.85rem}
@media (max-width:34rem){body{padding:1.2rem .9rem 3rem}ul.checks li{grid-template-columns:1fr}h1{font-size:1.5rem}}
@page{margin:14mm}
@media print{
  body{max-width:none;padding:0;font-size:9.5pt}
  h2{margin-top:1.6rem;break-after:avoid}
  h3{break-after:avoid}
  .plots{display:block}
  figure{max-width:118mm;margin:0 auto 7mm}
  figure svg{min-width:0}
  ul.checks li{padding:.3rem 0}
  table{font-size:8.5pt}
  th,td{padding:.15rem .7rem .15rem 0}
  .settings{columns:2;column-gap:8mm}
  figure,.card,ul.checks li,tr{break-inside:avoid}
  pre{white-space:pre-wrap;overflow-wrap:anywhere}
}
";
