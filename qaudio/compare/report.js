"use strict";
// Texts of entries are only ever put in as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const status = document.getElementById("status");

function make(parent, name, attributes = {}, text = null) {
  const drawn = parent.namespaceURI.endsWith("svg") || name === "svg";
  const element = document.createElementNS(
    drawn ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

const percent = (share) => (100 * share).toFixed(1) + "\u00a0%";
const points = (share) => (share > 0 ? "+" : "") + (100 * share).toFixed(1);

function short(value, unit) {
  if (unit === "ms") return String(value);
  const prefixes = ["", "k", "M", "G", "T"];
  let step = 0;
  while (value >= 1000 && step < 4) { value /= 1000; step += 1; }
  return `${+value.toPrecision(3)}\u00a0${prefixes[step]}${unit}`.trim();
}

// Sorting: every header of a table becomes a button.

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const say = table.closest("section").dataset.title;
  heads.forEach((head, column) => {
    const title = head.textContent;
    head.textContent = "";
    const button = make(head, "button", { type: "button" }, title);
    button.addEventListener("click", () => {
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const body = table.tBodies[0];
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...body.rows].sort((a, b) => {
        const [one, two] = [value(a), value(b)];
        if (one === "" || two === "") return (one === "") - (two === "");  // without a value: last
        return sign * (head.dataset.text ? one.localeCompare(two, "en", { numeric: true })
          : one - two);
      });
      body.append(...rows);
      status.textContent = `${say}: sorted by ${title}, ${order}`;
    });
  });
}

// Filtering: rows and points of the chart.

const groups = data.groups.map((group, n) => {
  const section = document.getElementById(`group${n}`);
  return { ...group, section, rows: [...section.querySelectorAll("tr[data-member]")] };
});

function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const benchmark = document.getElementById("benchmark").value;
  let shown = 0, total = 0;
  for (const group of groups) {
    const right = !benchmark || group.benchmark === benchmark;
    let here = 0;
    for (const row of group.rows) {
      const text = group.members[row.dataset.member].search;
      row.hidden = !right || !words.every((word) => text.includes(word));
      here += !row.hidden;
    }
    group.section.hidden = here === 0;
    shown += here;
    total += group.rows.length;
    if (here) group.draw();
  }
  status.textContent = `${shown} of ${total} entries shown`;
}

// The chart.

const overlap = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width
  && a.y < b.y + b.height && b.y < a.y + a.height;

function ticks(low, high, most) {
  const found = { fine: [], coarse: [] };
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const digit of [1, 2, 5]) {
      const value = digit * 10 ** power;
      if (value >= low && value <= high) {
        found.fine.push(value);
        if (digit === 1) found.coarse.push(value);
      }
    }
  }
  return found.fine.length <= most ? found.fine : found.coarse;
}

// Marks that no name has room beside carry a number, and `numbers` lists the names.
function drawChart(group, key, holder, numbers, details) {
  const measure = group.measures[key];
  const visible = group.members.map((member, n) => ({ ...member, n, value: member.costs[key] }))
    .filter(({ n, value }) => value !== null
      && !group.rows.find((row) => +row.dataset.member === n).hidden)
    .sort((a, b) => a.value - b.value);
  holder.textContent = numbers.textContent = "";
  details.textContent = "Point at an entry, or tab to the chart and use the arrow keys, for details.";
  if (!visible.length) {
    details.textContent = `No entry here has a measured ${measure.title}.`;
    return;
  }
  const width = Math.max(280, holder.clientWidth), height = width < 560 ? 340 : 420;
  const left = 44, right = width - 12, top = 12, bottom = height - 44;
  const low = visible[0].value / 1.6, high = visible[visible.length - 1].value * 1.6;
  const floor = Math.min(...visible.map((m) => m.low)), ceiling = Math.max(...visible.map((m) => m.high));
  const room = Math.max(0.02, 0.08 * (ceiling - floor));
  const [least, most] = [Math.max(0, floor - room), Math.min(1, ceiling + room)];
  const x = (value) => left + (right - left) * Math.log(value / low) / Math.log(high / low);
  const y = (share) => bottom - (bottom - top) * (share - least) / (most - least);

  const svg = make(holder, "svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `${group.metric} against ${measure.title}, ${visible.length} entries` });
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2];
  const step = steps.find((size) => (most - least) / size <= 8) || 0.5;
  for (let n = Math.ceil(least / step); n * step <= most + 1e-9; n += 1) {
    make(svg, "line", { class: "grid", x1: left, x2: right, y1: y(n * step), y2: y(n * step) });
    make(svg, "text", { x: left - 6, y: y(n * step) + 4, "text-anchor": "end", "aria-hidden": true },
      (100 * n * step).toFixed(0));
  }
  for (const value of ticks(low, high, (right - left) / 60)) {
    make(svg, "line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: bottom });
    make(svg, "text", { x: x(value), y: bottom + 16, "text-anchor": "middle", "aria-hidden": true },
      short(value, measure.unit));
  }
  make(svg, "path", { class: "axis", fill: "none", d: `M${left} ${top}V${bottom}H${right}` });
  make(svg, "text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" },
    `${measure.title}${measure.unit === "ms" ? ", ms" : ""} (log scale)`);
  make(svg, "text", { x: left + 6, y: top + 8 }, `${group.metric}, %`);

  const taken = [{ x: left, y: top - 6, width: 90, height: 18 }];
  measure.fronts.forEach((front, n) => {
    const corners = front.map((index) => visible.find((member) => member.n === index)).filter(Boolean);
    if (!corners.length) return;
    let path = `M${x(corners[0].value)} ${y(corners[0].score)}`;
    corners.slice(1).forEach((member, k) => {
      const y0 = y(corners[k].score);
      taken.push({ x: x(corners[k].value), y: y0 - 1,
        width: x(member.value) - x(corners[k].value), height: 2 });
      path += `H${x(member.value)}V${y(member.score)}`;
    });
    make(svg, "path", { class: "front", d: path, "stroke-dasharray": dashes(n) });
  });

  const drawn = visible.map((member) => {
    const point = make(svg, "g", { class: "point", role: "img", tabindex: -1,
      "data-member": member.n, "aria-label": member.details });
    const [cx, cy] = [x(member.value), y(member.score)];
    make(point, "line", { class: `bar ${member.family}`, x1: cx, x2: cx, y1: y(member.low),
      y2: y(member.high) });
    make(point, "circle", { class: "ring", cx, cy, r: 10 });
    if (member.family === "real") {
      make(point, "rect", { class: "real", x: cx - 5, y: cy - 5, width: 10, height: 10 });
    } else {
      make(point, "circle", { class: "quaternion", cx, cy, r: 5.5 });
    }
    make(point, "circle", { cx, cy, r: 16, fill: "transparent" });  // enough for a finger
    taken.push({ x: cx - 6, y: cy - 6, width: 12, height: 12 },
      { x: cx - 1, y: y(member.high), width: 2, height: y(member.low) - y(member.high) });
    return { point, member, cx, cy };
  });
  const numbered = drawn.filter(({ member, cx, cy }) => !placeLabel(svg, member.name, cx, cy, taken));
  numbers.textContent = "";
  numbered.forEach(({ member, cx, cy }, n) => {
    placeLabel(svg, String(n + 1), cx, cy, taken, true);
    make(numbers, "li", {}, member.name);
  });

  const show = (chosen) => {
    for (const { point, member } of drawn) {
      point.classList.toggle("marked", member === chosen);
      group.rows.find((row) => +row.dataset.member === member.n)
        .classList.toggle("marked", member === chosen);
    }
    if (chosen) details.textContent = chosen.details;
  };
  drawn[0].point.setAttribute("tabindex", 0);
  drawn.forEach(({ point, member }, n) => {
    point.addEventListener("pointerenter", () => show(member));
    point.addEventListener("click", () => show(member));
    point.addEventListener("pointerleave", () => show(null));
    point.addEventListener("focus", () => show(member));
    point.addEventListener("blur", () => show(null));
    point.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: n + 1, ArrowDown: n + 1, ArrowLeft: n - 1, ArrowUp: n - 1,
        Home: 0, End: drawn.length - 1 };
      const next = drawn[steps[event.key]];
      if (!(event.key in steps)) return;
      event.preventDefault();
      if (!next) return;
      point.setAttribute("tabindex", -1);
      next.point.setAttribute("tabindex", 0);
      next.point.focus();
    });
  });

  // Whether the label was placed; with `must` it is put over others where nothing is free.
  function placeLabel(parent, name, cx, cy, taken, must = false) {
    const label = make(parent, "text", { "aria-hidden": true, class: "name" }, name);
    const { width: long, height: tall } = label.getBBox();
    const beside = { 1: cx + 8, "-1": cx - 8 - long,
      0: Math.min(Math.max(cx - long / 2, left), width - long) };  // above or below the interval
    for (let away = 0; away < 130; away += 10) {
      for (const [side, upwards] of [[1, 1], [-1, 1], [1, -1], [-1, -1], [0, 1], [0, -1]]) {
        const box = { x: beside[side],
          y: upwards > 0 ? cy - away - tall - 2 : cy + away + 2, width: long, height: tall };
        const inside = box.x >= left && box.x + long <= width && box.y >= 0 && box.y + tall <= bottom;
        if (!inside || taken.some((other) => overlap(box, other))) continue;
        label.setAttribute("x", box.x);
        label.setAttribute("y", box.y + 0.78 * tall);
        if (away > 10) {
          make(parent, "line", { class: "leader", x1: cx, y1: cy, x2: cx + 8 * side,
            y2: upwards > 0 ? box.y + tall : box.y });
        }
        taken.push(box);
        return true;
      }
    }
    if (must) {
      label.setAttribute("x", Math.min(cx + 8, width - long));
      label.setAttribute("y", Math.max(cy - 8, tall));
    } else {
      label.remove();
    }
    return must;
  }
}

const dashes = (n) => ["none", "6 4", "2 3", "8 3 2 3"][n % 4];

function legend(group, key, list) {
  list.textContent = "";
  const item = (text, draw) => {
    const entry = make(list, "li");
    draw(make(entry, "svg", { viewBox: "0 0 32 18", "aria-hidden": true }));
    entry.append(text);
  };
  const families = new Set(group.members.map((member) => member.family));
  if (families.has("quaternion")) {
    item("quaternion", (svg) => make(svg, "circle", { class: "quaternion", cx: 16, cy: 9, r: 6 }));
  }
  if (families.has("real")) {
    item("real", (svg) => make(svg, "rect", { class: "real", x: 10, y: 3, width: 12, height: 12 }));
  }
  const { fronts, conditions } = group.measures[key];
  fronts.forEach((_, n) => item(
    "Pareto front" + (conditions[n] ? ` (${conditions[n]})` : ""),
    (svg) => make(svg, "path", { class: "front", d: "M0 9H32", "stroke-dasharray": dashes(n) })));
  item("95 % interval", (svg) => make(svg, "path", { class: "bar axis", d: "M16 0V18" }));
}

// Two entries side by side.

function comparePair(group, one, two, verdict, holder) {
  const [a, b] = [group.members[one], group.members[two]];
  holder.textContent = "";
  if (one === two) {
    verdict.textContent = "Choose two different entries.";
    return;
  }
  const known = group.pairs[`${one},${two}`];
  if (known) {
    const sure = known.low > 0 ? "the first is better" : known.high < 0 ? "the second is better"
      : "which is better stays open";
    verdict.textContent = `Paired difference, first less second: ${known.text} points, 95 % interval `
      + `in brackets, on ${known.clips} clips that both were scored on: ${sure}.`;
  } else {
    verdict.textContent = "No paired difference: the two were not scored on the same clips, or "
      + "keep no predictions.";
  }
  const costs = table(holder, "Scores and costs; the ratio is the first to the second", ["", a.name, b.name, "ratio"]);
  group.facts.forEach((fact, n) => {
    const row = make(costs, "tr");
    make(row, "th", { scope: "row" }, fact.title);
    for (const member of [a, b]) {
      make(row, "td", fact.title === "licence" ? { class: "words" } : {}, member.facts[n] || "–");
    }
    const alike = fact.key && a.conditions[fact.key] === b.conditions[fact.key];
    const ratio = alike ? a.costs[fact.key] / b.costs[fact.key] : NaN;
    make(row, "td", {}, alike && a.costs[fact.key] !== null && b.costs[fact.key] !== null
      ? `${+ratio.toPrecision(2)}×` : "");
  });
  classTable(group, a, b, holder);
}

function table(holder, caption, heads) {
  const element = make(holder, "table");
  make(element, "caption", {}, caption);
  const row = make(make(element, "thead"), "tr");
  for (const head of heads) {
    const cell = make(row, head ? "th" : "td", head ? { scope: "col" } : {});
    for (const part of head.split(/(?<=[._])/)) cell.append(part, document.createElement("wbr"));
  }
  return make(element, "tbody");
}

function classTable(group, a, b, holder) {
  if (!a.classes || !b.classes || JSON.stringify(a.labels) !== JSON.stringify(b.labels)) {
    make(holder, "p", {}, "No comparison by class: " + (a.classes && b.classes
      ? "the two name their classes differently." : "predictions are missing."));
    return;
  }
  const what = group.metric === "accuracy" ? "share of each class's clips that was found"
    : "average precision of each class";
  const body = table(holder, `By class: ${what}, and the difference in points`,
    ["class", "clips", "first", "second", "difference"]);
  body.parentElement.tHead.rows[0].cells[0].dataset.text = "yes";
  const differences = a.classes.map((score, n) => score === null || b.classes[n] === null
    ? null : score - b.classes[n]);
  const largest = Math.max(0.01, ...differences.map(Math.abs));
  a.labels.forEach((label, n) => {
    const row = make(body, "tr");
    make(row, "th", { scope: "row", "data-value": label }, label);
    make(row, "td", { "data-value": a.clips[n] }, String(a.clips[n]));
    for (const score of [a.classes[n], b.classes[n]]) {
      make(row, "td", { "data-value": score ?? "" }, score === null ? "–" : percent(score));
    }
    const difference = differences[n];
    const cell = make(row, "td", { "data-value": difference ?? "" });
    if (difference === null) return;
    cell.className = difference > 0 ? "better" : difference < 0 ? "worse" : "";
    cell.append(points(difference));
    const bar = make(make(cell, "span", { class: "meter", "aria-hidden": true }), "i");
    bar.style.width = `${50 * Math.abs(difference) / largest}%`;
    bar.style[difference > 0 ? "left" : "right"] = "50%";
  });
  makeSortable(body.parentElement);
}

// Set up.

for (const group of groups) {
  const { section } = group;
  makeSortable(section.querySelector(".entries"));
  const chart = section.querySelector(".chart"), axis = chart.querySelector("select");
  const holder = chart.querySelector(".canvas"), details = chart.querySelector(".details");
  chart.hidden = false;
  group.draw = () => {
    drawChart(group, axis.value, holder, chart.querySelector(".numbers"), details);
    legend(group, axis.value, chart.querySelector(".legend"));
  };
  axis.addEventListener("change", group.draw);
  let width = 0;
  new ResizeObserver(() => {
    if (holder.clientWidth && holder.clientWidth !== width) {
      width = holder.clientWidth;
      group.draw();
    }
  }).observe(holder);
  const pair = section.querySelector(".pair");
  if (!pair) continue;
  pair.hidden = false;
  const [first, second] = pair.querySelectorAll("select");
  const compare = () => comparePair(group, +first.value, +second.value,
    pair.querySelector(".verdict"), pair.querySelector(".outcome"));
  first.addEventListener("change", compare);
  second.addEventListener("change", compare);
  compare();
}
const controls = document.getElementById("controls");
controls.hidden = false;
controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("input", filter);
controls.addEventListener("change", filter);
filter();
