"""How a story's page looks, on a screen, on a phone and on paper."""

STYLE = """
:root { --paper: #fdfaf3; --desk: #efe8da; --ink: #35291f; --faint: #8d7c68; --line: #4a362022;
  --accent: #b5533c; --blank: #e8e2d6; }
* { box-sizing: border-box; margin: 0; }
html { -webkit-text-size-adjust: 100%; }
body { background: var(--desk); color: var(--ink); padding: 0 20px 48px; line-height: 1.5;
  font-family: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", "URW Palladio L",
    "TeX Gyre Pagella", Georgia, "DejaVu Serif", serif; font-feature-settings: "liga", "onum"; }
main { max-width: 1040px; margin: 0 auto; }
header { text-align: center; padding: clamp(48px, 9vh, 104px) 0 clamp(36px, 6vh, 64px); }
h1 { font-size: clamp(2rem, 5vw, 3.5rem); font-weight: 600; line-height: 1.12;
  letter-spacing: -.012em; text-wrap: balance; max-width: 18em; margin: 0 auto; }
header::after { content: "\\2766"; display: block; margin-top: 1.2rem; font-size: 1.5rem;
  color: var(--accent); }
.page { position: relative; display: grid; grid-template-columns: 1fr 1fr; margin-bottom: 36px;
  background: var(--paper); border-radius: 5px; overflow: hidden; break-inside: avoid;
  box-shadow: 0 1px 2px #4a36201f, 0 18px 40px -12px #4a36203d; }
.page::after { content: ""; position: absolute; inset: 0 calc(50% - 30px); pointer-events: none;
  background: linear-gradient(90deg, transparent, #5a42281c 50%, transparent); }
.page:nth-of-type(even) .art { order: 2; }
.art { display: grid; align-content: center; gap: 14px; padding: 36px; }
.art img { display: block; width: 100%; height: auto; border-radius: 3px; }
.art > img { box-shadow: 0 0 0 1px var(--line), 0 6px 18px -6px #4a362040; }
.strip { display: grid; grid-template-columns: repeat(auto-fit, minmax(0, 1fr)); gap: 8px;
  align-items: end; list-style: none; padding: 0; }
.moment img { box-shadow: 0 0 0 1px var(--line); background: var(--blank); }
.words { display: flex; flex-direction: column; justify-content: center; padding: 44px 48px 60px;
  font-size: clamp(1.25rem, 2.1vw, 1.65rem); line-height: 1.52; text-wrap: pretty;
  hanging-punctuation: first; hyphens: auto; overflow-wrap: anywhere; }
.words p + p { margin-top: .8em; }
.words.long { font-size: 1.05rem; }
.first .words p:first-child::first-letter { float: left; font-size: 3.5em; line-height: .8;
  padding: .08em .1em 0 0; color: var(--accent); }
.number { position: absolute; bottom: 20px; right: 28px; font-size: .85rem; color: var(--faint);
  font-feature-settings: "onum"; }
.page:nth-of-type(even) .number { right: auto; left: 28px; }
.plain { display: block; }
.plain::after { display: none; }
.plain .words { padding: 60px 12%; }
.plain .art { max-width: 560px; margin: 0 auto; }
.end { text-align: center; font-style: italic; font-size: 1.3rem; padding: 14px 0 44px; }
footer { border-top: 1px solid var(--line); padding-top: 22px; font-size: .84rem;
  color: var(--faint); }
footer h2 { font-size: .84rem; font-weight: 600; font-variant: small-caps; letter-spacing: .06em;
  text-align: center; margin-bottom: 12px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; max-width: 640px;
  margin: 0 auto; }
dt { text-align: right; font-style: italic; }
dd { color: var(--ink); overflow-wrap: anywhere; }
@media (max-width: 720px) {
  body { padding: 0 14px 32px; }
  .page { display: block; }
  .page::after { display: none; }
  .art { padding: 18px 18px 0; }
  .words { padding: 24px 26px 54px; }
  dl { display: block; }
  dt { text-align: left; margin-top: 8px; }
}
@page { size: A4 landscape; margin: 14mm; }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { background: none; padding: 0; }
  main { max-width: none; }
  header { display: flex; flex-direction: column; justify-content: center; height: 175mm;
    break-after: page; padding: 0; }
  h1 { font-size: 36pt; }
  .page { height: 172mm; margin: 0; box-shadow: none; border: .3mm solid var(--line);
    break-after: page; }
  .art { padding: 9mm; }
  .art > img, .strip { max-width: 110mm; margin: 0 auto; width: 100%; }
  .words { font-size: 17pt; }
  .end { padding: 20mm 0 12mm; }
  footer { break-inside: avoid; }
}
"""
