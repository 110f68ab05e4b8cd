"use strict";
// Everything here comes from the element "data"; words are put in as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const dashes = ["solid", "dash", "dot", "dashdot"];
const byId = (id) => document.getElementById(id);
// A colour of the style sheet as it is now: light and dark have their own.
const styled = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const scheme = matchMedia("(prefers-color-scheme: dark)");
// On dark ground blue is too dark for a line, and black is not seen.
const onDark = { "#0072B2": "#3D9BDC", "#000000": "#E6E8EA" };
const lit = (colour) => (scheme.matches ? onDark[colour.toUpperCase()] ?? colour : colour);
const font = () => ({ family: getComputedStyle(document.body).fontFamily, size: 12, color: styled("ink") });

function element(kind, text, options = {}) {
  const made = document.createElement(kind);
  if (text !== undefined && text !== null) made.textContent = text;
  Object.assign(made, options);
  return made;
}

// A number in few letters; nothing where there is none.
function number(x, digits = 4) {
  if (x === null || x === undefined) return "–";
  if (typeof x !== "number") return String(x);
  if (Number.isInteger(x) && Math.abs(x) < 1e15) return x.toLocaleString("en-US");
  return String(Number(x.toPrecision(digits)));
}

function interval(mean, low, high) {
  if (mean === null || mean === undefined) return "–";
  const has = low !== null && low !== undefined && high !== null && high !== undefined;
  return number(mean) + (has ? ` [${number(low)}, ${number(high)}]` : "");
}

// Plotly reads a little markup in its words, of which ours have none.
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

function table(heads, rows, words) {
  const made = element("table");
  const head = made.createTHead().insertRow();
  const body = made.createTBody();
  heads.forEach((name, column) => {
    const cell = element("th", name, { tabIndex: 0, scope: "col", title: "sort" });
    if (words.includes(column)) cell.classList.add("words");
    let up = true;
    const sort = () => {
      const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
      const value = (row) => { const k = key(row); return k !== "" && !isNaN(k) ? Number(k) : k; };
      [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const order = typeof x === "number" && typeof y === "number" ? x - y
          : String(x).localeCompare(String(y), "en", { numeric: true });
        return up ? order : -order;
      }).forEach((row) => body.append(row));
      up = !up;
    };
    cell.addEventListener("click", sort);
    cell.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    head.append(cell);
  });
  for (const cells of rows) {
    const row = body.insertRow();
    cells.forEach((own, column) => {
      const { text, key, colour, style } = typeof own === "object" && own !== null ? own : { text: own };
      const cell = row.insertCell();
      if (colour) {
        const swatch = element("span", "", { className: "swatch solid" });
        swatch.style.borderTopColor = colour;
        cell.append(swatch);
      }
      cell.append(text ?? "–");
      if (key !== undefined && key !== null) cell.dataset.key = key;
      if (words.includes(column)) cell.classList.add("words");
      if (style) cell.classList.add(...style.split(" "));
    });
  }
  return made;
}

// What is chosen: a place on each axis, or "" for all of its values; kept in the address.
const chosen = {};

function choices() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const form = byId("choices");
  const select = (name, words, options, preset) => {
    const label = element("label", words);
    const made = element("select", null, { id: `choose-${name}` });
    for (const [value, text] of options) made.append(element("option", text, { value }));
    const wanted = asked.get(name);
    made.value = options.some(([value]) => value === wanted) ? wanted : preset;
    chosen[name] = made.value;
    made.addEventListener("change", () => { chosen[name] = made.value; remember(); draw(); });
    label.append(made);
    form.append(label);
  };
  select("metric", "metric", data.metrics.map((m) => [m.name, m.label]), data.metrics[0].name);
  let lines = 1;
  for (const axis of data.axes) {
    const values = axis.values.map((text, place) => [String(place), text]);
    // No more lines than can be told apart, unless somebody asks for them.
    const all = lines * values.length <= 10;
    if (all) lines *= values.length;
    select(axis.name, axis.label, [["", `all ${values.length}`], ...values], all ? "" : "0");
  }
  if (data.axes.length) {
    const options = [["", "none"], ...data.axes.map((axis) => [axis.name, axis.label])];
    select("panels", "a panel each", options, "");
  }
  select("y", "scale", [["linear", "linear"], ["log", "logarithmic"]], "linear");
  select("x", "time", [["linear", "linear"], ["log", "logarithmic"]], "linear");
  if (data.cells.some((cell) => cell.runs >= data.fewest)) {
    const label = element("label", null, { className: "tick" });
    const box = element("input", null, { type: "checkbox", id: "choose-bands" });
    box.checked = asked.get("bands") !== "no";
    chosen.bands = box.checked ? "yes" : "no";
    box.addEventListener("change", () => { chosen.bands = box.checked ? "yes" : "no"; remember(); draw(); });
    label.append(box, "intervals");
    form.append(label);
  }
}

function remember() {
  history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
}

// The cells that are shown, each with its name and how it is drawn.
function shown() {
  const open = data.axes.map((axis, i) => [axis, i])
    .filter(([axis]) => chosen[axis.name] === "" && axis.name !== chosen.panels);
  const cells = data.cells.filter((cell) => data.axes.every((axis, i) =>
    axis.name === chosen.panels && chosen[axis.name] === ""
      ? true : chosen[axis.name] === "" || Number(chosen[axis.name]) === cell.at[i]));
  const names = (cell) => open.map(([axis, i]) => axis.tags[cell.at[i]]).join(", ");
  const order = [...new Set(cells.map(names))];
  return cells.map((cell) => {
    const place = order.indexOf(names(cell));
    const count = data.colours.length;
    return { cell, name: names(cell) || data.title || "mean", colour: lit(data.colours[place % count]),
      dash: dashes[Math.floor(place / count) % dashes.length], place };
  });
}

function faint(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},0.16)`;
}

function traces(lines) {
  const out = [];
  for (const { cell, name, colour, dash } of lines) {
    const curve = cell.curves[chosen.metric];
    if (!curve) continue;
    const group = escaped(name);
    const runs = curve.runs === 1 ? "1 run" : `${curve.runs} runs`;
    if (curve.low && chosen.bands !== "no") {
      const end = { x: curve.time, mode: "lines", line: { width: 0 }, hoverinfo: "skip",
        showlegend: false };
      out.push({ ...end, y: curve.high }, { ...end, y: curve.low, fill: "tonexty", fillcolor: faint(colour) });
    }
    out.push({
      x: curve.time, y: curve.mean, mode: curve.time.length > 1 ? "lines" : "markers",
      name: group, line: { color: colour, dash, width: 2 }, marker: { color: colour },
      customdata: curve.mean.map((mean, i) => interval(mean, curve.low?.[i], curve.high?.[i])),
      hovertemplate: `%{customdata}, ${runs}<extra>${group}</extra>`,
    });
  }
  return out;
}

function draw() {
  const metric = data.metrics.find((own) => own.name === chosen.metric);
  const lines = shown();
  const place = data.axes.findIndex((axis) => axis.name === chosen.panels);
  legend(lines);
  const panels = place < 0 ? [[null, lines]]
    : data.axes[place].values.map((text, i) => [text, lines.filter((own) => own.cell.at[place] === i)])
      .filter(([, own]) => own.length);
  const home = byId("panels");
  home.replaceChildren();
  home.classList.toggle("one", panels.length === 1);
  const drawn = lines.map((own) => own.cell.curves[chosen.metric]).filter(Boolean);
  const range = drawn.length && panels.length > 1 ? shared(drawn) : undefined;
  // All of them before the first is drawn: how many there are decides how wide one is.
  const plots = panels.map(([text]) => {
    const panel = element("div", null, { className: "panel" });
    if (text !== null) panel.append(element("h3", `${data.axes[place].label}: ${text}`));
    const plot = element("div", null, { className: "plot" });
    panel.append(plot);
    home.append(panel);
    return plot;
  });
  panels.forEach(([, own], i) => {
    const axis = { gridcolor: styled("grid"), zeroline: false };
    Plotly.newPlot(plots[i], traces(own.filter((line) => !hidden.has(line.name))), {
      margin: { l: 64, r: 14, t: 30, b: 44 },
      font: font(),
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      modebar: { bgcolor: styled("bar"), color: "#9aa0a6", activecolor: styled("accent") },
      hoverlabel: { bgcolor: styled("tint"), bordercolor: styled("line"), font: { color: styled("ink") } },
      hovermode: own.length > 10 ? "closest" : "x unified", showlegend: false,
      xaxis: { ...axis, title: { text: escaped(data.time) }, type: chosen.x, ...ticks(chosen.x) },
      yaxis: { ...axis, type: chosen.y,
        title: { text: wrapped(metric.label).map(escaped).join("<br>"), standoff: 16 },
        automargin: true, range, ...ticks(chosen.y) },
    }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
  });
  caption(drawn);
  rows(metric, lines);
}

// One for all panels; who is clicked comes and goes.
const hidden = new Set();

function legend(lines) {
  const seen = new Map(lines.map((own) => [own.name, own]));
  const home = byId("legend");
  home.replaceChildren();
  if (seen.size < 2) return;
  for (const { name, colour, dash } of seen.values()) {
    const item = element("button", null, { type: "button", title: "show or hide" });
    const swatch = element("span", "", { className: `swatch ${dash}` });
    swatch.style.borderTopColor = colour;
    item.append(swatch, name);
    item.setAttribute("aria-pressed", String(!hidden.has(name)));
    item.addEventListener("click", () => {
      if (!hidden.delete(name)) hidden.add(name);
      draw();
    });
    home.append(item);
  }
}

// Of logarithmic axes the digits 1, 2 and 5.
const ticks = (kind) => (kind === "log" ? { dtick: "D2" } : {});

// Plotly does not break lines of an axis by itself.
function wrapped(text) {
  const out = [""];
  for (const word of text.split(" ")) {
    if ((out.at(-1) + word).length > 46) out.push("");
    out[out.length - 1] += `${word} `;
  }
  return out.map((line) => line.trim());
}

// One scale for all panels, or they could not be compared.
function shared(curves) {
  const log = chosen.y === "log";
  let [low, high] = [Infinity, -Infinity];
  for (const curve of curves) {
    const ends = chosen.bands !== "no" ? [curve.low, curve.high] : [];
    for (const values of [curve.mean, ...ends]) {
      for (const x of values ?? []) {
        if (x === null || (log && x <= 0)) continue;
        low = Math.min(low, x);
        high = Math.max(high, x);
      }
    }
  }
  if (!(low <= high)) return undefined;
  if (log) [low, high] = [Math.log10(low), Math.log10(high)];
  const room = 0.05 * (high - low || 1);
  return [low - room, high + room];
}

function caption(curves) {
  const runs = [...new Set(curves.map((curve) => curve.runs))].sort((a, b) => a - b);
  const lost = curves.reduce((sum, curve) => sum + curve.lost, 0);
  if (!runs.length) {
    byId("caption").textContent = "Nothing finite was recorded of these.";
    return;
  }
  const last = runs.at(-1);
  const count = runs.length > 1 ? `${runs[0]} to ${last} runs` : last === 1 ? "one run" : `${last} runs`;
  let text = last === 1 ? "One run." : `Means of ${count}`;
  if (last > 1) {
    text += last >= data.fewest ? "; 95 % Student t intervals of the mean are shaded" : "";
    text += runs[0] < data.fewest ? `; of fewer than ${data.fewest} runs there is no interval.` : ".";
  }
  if (lost) text += ` Left out as not finite: ${lost === 1 ? "1 run" : `${lost} runs`}.`;
  if (data.thinned) text += ` Of each curve ${data.thinned} records are drawn.`;
  byId("caption").textContent = text;
}

function rows(metric, lines) {
  const heads = [...data.axes.map((axis) => axis.label), `${metric.label}, at the end`, "second half", "runs",
    "diverged", ...data.costs];
  const words = data.axes.map((_, i) => i);
  const made = lines.map(({ cell, colour }) => {
    const curve = cell.curves[chosen.metric];
    const last = curve ? curve.mean.length - 1 : 0;
    const half = curve ? mean(curve.mean.slice(Math.floor(curve.mean.length / 2))) : null;
    return [
      ...data.axes.map((axis, i) => ({ text: axis.values[cell.at[i]], key: undefined,
        colour: i === 0 ? colour : undefined })),
      { text: curve ? interval(curve.mean[last], curve.low?.[last], curve.high?.[last]) : "–",
        key: curve ? curve.mean[last] : "" },
      { text: number(half), key: half },
      { text: `${curve ? curve.runs : cell.runs}`, key: curve ? curve.runs : 0 },
      { text: `${cell.diverged}`, key: cell.diverged },
      ...cell.costs.map((x) => ({ text: number(x, 6), key: x })),
    ];
  });
  const section = byId("table");
  section.replaceChildren(element("h2", "Table"), table(heads, made, words));
}

function mean(values) {
  const known = values.filter((x) => x !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
}

function configurations() {
  const home = byId("configurations");
  home.append(element("h2", "Configuration"));
  for (const { label, values } of data.configurations) {
    const box = element("details");
    box.append(element("summary", label || "what was run"));
    const flat = [];
    const walk = (value, name) => {
      if (value !== null && typeof value === "object" && !Array.isArray(value)) {
        for (const [key, own] of Object.entries(value)) walk(own, name ? `${name}.${key}` : key);
      } else {
        flat.push([name, Array.isArray(value) ? JSON.stringify(value) : String(value)]);
      }
    };
    walk(values, "");
    box.append(table(["property", "value"], flat, [0, 1]));
    home.append(box);
  }
}
