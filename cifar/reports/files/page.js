// What report.html and run.html do: sorts the table, opens rows, copies commands, and draws the curves with uPlot.
"use strict";
const table = document.getElementById("points");
const valueOf = (body, column) => {
  const text = body.rows[0].cells[column].dataset.value;
  return text === "" ? null : isNaN(text) ? text : Number(text);
};
const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;

table?.tHead.addEventListener("click", event => {
  const heading = event.target.closest("th");
  if (!heading || !event.target.closest("button")) return;
  const isDescending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
  const bodies = [...table.tBodies].map(body => [valueOf(body, heading.cellIndex), body]);
  bodies.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) // what has no value comes last
    : isDescending ? compare(b, a) : compare(a, b));
  table.append(...bodies.map(([, body]) => body));
});

document.addEventListener("click", event => {
  const open = event.target.closest(".open");
  if (open) {
    const runs = open.closest("tbody").rows[1];
    runs.hidden = !runs.hidden;
    open.setAttribute("aria-expanded", String(!runs.hidden));
  }
  const button = event.target.closest(".copy");
  if (button) copy(button.previousElementSibling, button);
});

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch { // a browser that forbids it still copies what is selected
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

const STRAY = 5; // a loss this many times the median one may leave the picture
const BAND = "40"; // the opacity of a band over seeds, behind a colour
const NEAR = 30; // pixels from the pointer to a curve that it names
const data = document.getElementById("curve-data");
const curves = data ? JSON.parse(data.textContent) : { names: [], panels: [] };
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const variable = rank => rank < curves.numColours ? `--curve-${rank}` : "--grey";
const hidden = new Set();
const plots = curves.panels.map(addPanel);

function addPanel(panel) {
  const place = document.createElement("div");
  const title = document.createElement("h3");
  title.textContent = panel.title;
  place.className = "panel";
  place.append(title);
  document.getElementById("curves").append(place);
  const series = [...panel.series].sort(([a], [b]) => b - a); // the best is drawn last, on top
  const bands = series.filter(([, , , lows]) => lows);
  const tables = [...series.map(([, steps, values]) => [steps, values]), ...bands.map(([, steps, , lows, highs]) => [steps, lows, highs])];
  const plot = new uPlot(options(place, panel, series, bands), uPlot.join(tables), place);
  plot.ranks = series.map(([rank]) => rank); // of the first series; those behind them are the bands' ends
  plot.bandRanks = bands.flatMap(([rank]) => [rank, rank]);
  new ResizeObserver(() => plot.setSize(size(place))).observe(place);
  addTip(plot, place);
  return plot;
}

function size(place) {
  return { width: place.clientWidth, height: Math.min(340, Math.max(240, place.clientWidth * 0.6)) };
}

function options(place, panel, series, bands) {
  const axis = { stroke: () => css("--soft"), grid: { stroke: () => css("--line"), width: 1 }, ticks: { stroke: () => css("--line"), width: 1 } };
  return {
    ...size(place),
    legend: { show: false },
    cursor: { points: { show: false }, drag: { x: true, y: false } },
    scales: { x: { time: false }, y: panel.isLoss ? lossScale(series) : {} },
    axes: [{ ...axis, label: "step", labelSize: 20, labelFont: "12px system-ui" }, { ...axis, size: 60 }],
    series: [{}, ...series.map(([rank, steps]) => ({
      stroke: () => css(variable(rank)), width: rank < curves.numColours ? 2 : 1, spanGaps: true,
      points: { show: steps.length === 1, fill: () => css(variable(rank)) },
    })), ...bands.flatMap(() => [0, 1].map(() => ({ width: 0, points: { show: false }, spanGaps: true })))],
    bands: bands.map(([rank], place) => {
      const low = 1 + series.length + 2 * place;
      return { series: [low + 1, low], fill: () => css(variable(rank)) + BAND };
    }),
  };
}

// One run that went astray does not flatten all others; a loss that spans much is shown on a log scale.
function lossScale(series) {
  const losses = series.flatMap(([, , ...columns]) => columns.flat()).filter(value => value !== null).sort((a, b) => a - b);
  if (!losses.length || losses[0] <= 0) return {};
  const top = Math.min(losses.at(-1), STRAY * losses[Math.floor(losses.length / 2)]);
  if (top > 20 * losses[0]) return { distr: 3, range: (_, low, high) => [low / 1.2, Math.min(high, top) * 1.2] };
  return top < losses.at(-1) ? { range: (_, low, high) => [0, 1.05 * Math.min(high, top)] } : {};
}

// The curve nearest to the pointer, with the step and the value of its point there.
function nearest(plot) {
  const { left, top } = plot.cursor;
  let best = null;
  plot.ranks.forEach((rank, index) => {
    const values = plot.data[index + 1];
    if (!plot.series[index + 1].show || left < 0) return;
    plot.data[0].forEach((step, place) => {
      if (values[place] == null) return;
      const x = plot.valToPos(step, "x"), y = plot.valToPos(values[place], "y");
      const distance = Math.hypot(x - left, y - top);
      if (distance < NEAR && (!best || distance < best.distance)) best = { rank, place, step, value: values[place], x, y, distance };
    });
  });
  return best;
}

// Where a curve's band begins and ends at a place, in words; nothing if it has none.
function seedRange(plot, { rank, place }) {
  const index = plot.bandRanks.indexOf(rank) + 1 + plot.ranks.length;
  const [low, high] = plot.bandRanks.includes(rank) ? [plot.data[index][place], plot.data[index + 1][place]] : [];
  return low === high ? "" : `, seeds ${low} to ${high}`;
}

function addTip(plot, place) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  place.append(tip);
  (plot.hooks.setCursor ??= []).push(() => {
    const found = nearest(plot);
    tip.hidden = !found;
    if (!found) return;
    tip.textContent = `${curves.names[found.rank]}: ${found.value} at step ${found.step}${seedRange(plot, found)}`;
    const over = plot.over.getBoundingClientRect(), around = place.getBoundingClientRect();
    const x = over.left - around.left + found.x, y = over.top - around.top + found.y;
    tip.style.left = `${Math.max(0, Math.min(x + 10, place.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${y - tip.offsetHeight - 8 < 0 ? y + 10 : y - tip.offsetHeight - 8}px`;
  });
}

// A name for each coloured curve, one for all grey ones.
function addLegend() {
  const legend = document.getElementById("legend");
  const groups = curves.names.slice(0, curves.numColours).map((name, rank) => [name, [rank]]);
  const grey = curves.names.map((_, rank) => rank).slice(curves.numColours);
  if (grey.length) groups.push([grey.length === 1 ? "1 other" : `${grey.length} others`, grey]);
  const buttons = groups.map(([name, ranks]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.style.setProperty("--colour", `var(${variable(ranks[0])})`);
    button.addEventListener("click", () => {
      const isHidden = hidden.has(ranks[0]);
      ranks.forEach(rank => isHidden ? hidden.delete(rank) : hidden.add(rank));
      show();
    });
    button.addEventListener("dblclick", () => {
      curves.names.forEach((_, rank) => ranks.includes(rank) ? hidden.delete(rank) : hidden.add(rank));
      show();
    });
    return button;
  });
  const show = () => {
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(!hidden.has(groups[place][1][0]))));
    for (const plot of plots) {
      plot.batch(() => [...plot.ranks, ...plot.bandRanks].forEach((rank, index) => plot.setSeries(index + 1, { show: !hidden.has(rank) })));
    }
  };
  legend.append(...buttons);
  show();
}

if (plots.length) addLegend();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(plot => plot.redraw(false, true)));
