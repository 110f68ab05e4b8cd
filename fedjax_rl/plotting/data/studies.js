// Of a study: what was claimed against what was measured, and its pictures.
const listed = (value) => (Array.isArray(value) ? value : [value]);

function claims(study) {
  const out = [];
  for (const target of study.summary.targets) {
    const bands = target.band && Array.isArray(target.band[0]) ? target.band : [target.band];
    listed(target.measured).forEach((measured, i) => {
      const [low, high] = bands[i] ?? bands[0] ?? [null, null];
      out.push({ target, measured, low: listed(target.low)[i], high: listed(target.high)[i],
        published: listed(target.published)[i], runs: listed(target.runs)[i], band: [low ?? null, high ?? null],
        verdict: (target.verdicts ?? [target.verdict])[i] ?? target.verdict });
    });
  }
  return out;
}

const verdictColours = { reproduced: "good", "not reproduced": "bad" };

// Where each number lies in its band, from -1 to 1 whatever its unit.
function inBands(study, found) {
  const known = found.filter((own) => typeof own.measured === "number" && own.band[0] !== null
    && own.band[1] !== null && own.band[1] > own.band[0]);
  if (!known.length) return;
  const place = (own, x) => {
    const half = (own.band[1] - own.band[0]) / 2;
    return Math.max(-3, Math.min(3, (x - own.band[0] - half) / half));
  };
  const plot = element("div", null, { className: "plot" });
  const height = 90 + 19 * known.length;
  plot.style.height = `${height}px`;
  byId("studies").append(element("h3", "Where what was measured lies in its band"), plot);
  const at = known.map((own) => place(own, own.measured));
  const ends = (own, name) => (typeof own[name] === "number" ? place(own, own[name]) : place(own, own.measured));
  Plotly.newPlot(plot, [{
    x: at, y: known.map((own, i) => `${escaped(own.target.id)}${"\u200b".repeat(i)}`), mode: "markers", type: "scatter",
    marker: { size: 9, color: known.map((own) => own.verdict in verdictColours ? styled(verdictColours[own.verdict]) : "#999999") },
    error_x: { type: "data", symmetric: false, thickness: 1.5, width: 3, color: styled("soft"),
      array: known.map((own, i) => ends(own, "high") - at[i]),
      arrayminus: known.map((own, i) => at[i] - ends(own, "low")) },
    customdata: known.map((own) => escaped(`${own.target.quantity}\n${interval(own.measured, own.low, own.high)}`
      + `, published ${number(own.published)}, band ${number(own.band[0])} to ${number(own.band[1])}`)
      .replace(/\n/g, "<br>").replace(/(.{60,}?) /g, "$1<br>")),
    hovertemplate: "%{customdata}<extra>%{y}</extra>",
  }], {
    height, margin: { l: 64, r: 14, t: 8, b: 40 }, showlegend: false,
    font: font(),
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { range: [-3.15, 3.15], tickvals: [-3, -1, 0, 1, 3], zeroline: false, gridcolor: styled("grid"),
      ticktext: ["beyond", "low end", "centre", "high end", "beyond"], fixedrange: true },
    yaxis: { range: [known.length - 0.4, -0.6], gridcolor: styled("grid"), automargin: true, type: "category", dtick: 1, fixedrange: true },
    shapes: [{ type: "rect", xref: "x", yref: "paper", x0: -1, x1: 1, y0: 0, y1: 1, line: { width: 0 },
      fillcolor: "rgba(0,158,115,0.10)", layer: "below" }],
  }, { responsive: true, displaylogo: false, displayModeBar: false });
}

function studies() {
  const home = byId("studies");
  for (const study of data.studies) {
    const found = claims(study);
    const counts = {};
    for (const own of study.summary.targets) counts[own.verdict] = (counts[own.verdict] ?? 0) + 1;
    if (study.name !== document.title) home.append(element("h2", study.name));
    home.append(element("p", `${study.summary.targets.length} claims: `
      + Object.entries(counts).map(([verdict, count]) => `${count} ${verdict}`).join(", ")));
    inBands(study, found);
    const section = element("section", null, { className: "wide" });
    section.append(table(["claim", "figure", "quantity", "published", "measured", "runs", "band", "verdict"],
      found.map((own) => [
        own.target.id, own.target.figure, { text: own.target.quantity, style: "text" },
        { text: number(own.published), key: own.published },
        { text: interval(own.measured, own.low, own.high), key: own.measured },
        { text: number(own.runs), key: own.runs },
        own.band.every((x) => x === null) ? "–" : `${number(own.band[0])} to ${number(own.band[1])}`,
        { text: own.verdict, style: `words ${String(own.verdict).replace(/ /g, "-")}` },
      ]), [0, 1, 2, 7]));
    home.append(section);
    const pictures = element("div", null, { className: "pictures" });
    for (const [name, source] of Object.entries(study.pictures)) {
      const figure = element("figure");
      figure.append(element("img", null, { src: source, alt: name, loading: "lazy" }), element("figcaption", name));
      pictures.append(figure);
    }
    home.append(pictures);
  }
}

byId("title").textContent = document.title;
if (data.cells) {
  byId("about").textContent = data.about ?? "";
  choices();
  draw();
  configurations();
} else {
  for (const id of ["choices", "caption", "legend", "panels", "table"]) byId(id).remove();
}
studies();
scheme.addEventListener("change", () => {
  if (data.cells) draw();
  byId("studies").replaceChildren();
  studies();
});
document.body.dataset.ready = "yes";
