// Draw the curves of report.html: `traces` is what cifar/page.py made for Plotly.
const place = document.getElementById("curves");
const isDark = matchMedia("(prefers-color-scheme: dark)");
const isNarrow = matchMedia("(max-width: 700px)");
const recorded = [...new Set(traces.map(trace => trace.yaxis))]; // "y", "y2" or both
const isAlone = recorded.length === 1;

function draw() {
  const style = getComputedStyle(document.documentElement);
  const [text, line] = ["--text", "--line"].map(name => style.getPropertyValue(name).trim());
  const axis = title => ({ title: { text: title }, gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true });
  const losses = traces.filter(trace => trace.yaxis === "y").flatMap(trace => trace.y).sort((a, b) => a - b);
  const top = losses.length ? Math.min(losses.at(-1), 5 * losses[Math.floor(losses.length / 2)]) : 1;
  const isLong = losses.length > 0 && losses[0] > 0 && top > 20 * losses[0];
  const loss = isLong ? { type: "log", range: [Math.log10(losses[0] / 1.2), Math.log10(top * 1.2)] }
    : top < losses.at(-1) ? { range: [0, 1.05 * top] } : {};
  const whole = [0, 1];
  const [left, right, upper, lower] = isAlone ? [whole, whole, whole, whole]
    : isNarrow.matches ? [whole, whole, [0.56, 1], [0, 0.44]] : [[0, 0.45], [0.55, 1], whole, whole];
  const panels = {
    y: { xaxis: { ...axis("step"), domain: left, anchor: "y" }, yaxis: { ...axis("training loss"), domain: upper, anchor: "x", ...loss } },
    y2: {
      xaxis2: { ...axis("step"), domain: right, anchor: "y2" },
      yaxis2: { ...axis("validation accuracy (%)"), domain: lower, anchor: "x2" },
    },
  };
  Plotly.react(place, traces.map(trace => trace.line.color === "#000000" ? { ...trace, line: { ...trace.line, color: text } } : trace), {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, family: "system-ui, sans-serif" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: text },
    margin: { l: 10, r: 10, t: 10, b: 10 }, hovermode: "closest",
    legend: { orientation: "h", y: isNarrow.matches ? -0.08 : -0.18, yanchor: "top", maxheight: 0.25, font: { size: 11 } },
    ...Object.assign({}, ...recorded.map(name => panels[name])),
  }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
}

draw();
isDark.addEventListener("change", draw);
isNarrow.addEventListener("change", draw);
