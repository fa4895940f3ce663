"use strict";
// The page is complete without this script but for its charts: sorting, filtering, choosing, drawing, following a sweep.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse($("#data").textContent);
  const memory = "unipet:" + location.pathname;
  document.documentElement.classList.add("js");

  // --- the comparison table -------------------------------------------------------------------------------------
  const table = $("#comparison-table"), filterText = $("#filter-text"), filters = $$("[data-filter]");
  function sortBy(column, direction) {
    const heads = $$("thead th", table), body = $("tbody", table);
    heads.forEach((head, at) => head.setAttribute("aria-sort", at === column ? direction : "none"));
    const value = row => row.children[column].dataset.value;
    const rows = [...body.rows];
    const numeric = rows.every(row => value(row) === "" || !Number.isNaN(Number(value(row))));
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort((one, other) => {
      const a = value(one), b = value(other);
      if (a === "" || b === "") return (a === "") - (b === "");  // what is not known stays last
      return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", {numeric: true}));
    });
    body.append(...rows);
  }
  function filter() {
    const words = filterText.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    const rows = [...$("tbody", table).rows];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every(word => text.includes(word)) && filters.every(one => !one.value || row.dataset[one.dataset.filter] === one.value));
      shown += !row.hidden;
    }
    $("#filter-count").textContent = `${shown} of ${rows.length} rows`;
  }
  if (table) {
    $$("thead th", table).forEach((head, at) => $("button", head).addEventListener("click", () => {
      const numbers = head.classList.contains("n"), now = head.getAttribute("aria-sort");
      sortBy(at, now === "none" ? (numbers ? "descending" : "ascending") : now === "ascending" ? "descending" : "ascending");
    }));
    filterText.addEventListener("input", filter);
    filters.forEach(one => one.addEventListener("change", filter));
  }

  // --- charts ---------------------------------------------------------------------------------------------------
  const comparison = $("#comparison"), highlight = $("#highlight"), views = new Map();
  function rowsOf(chart) {
    const texts = chart.fields.map(field => chart.texts.includes(field));
    return chart.rows.map(row => Object.fromEntries(row.flatMap((value, at) => value === null ? [] : [[chart.fields[at], texts[at] ? chart.words[value] : value]])));
  }
  async function draw(place) {
    const chart = data.charts[place.dataset.chart], group = place.dataset.shows ?? comparison.value;
    views.get(place)?.finalize();
    views.delete(place);
    const values = chart ? rowsOf(chart).filter(row => row.group === group) : [];
    place.hidden = !values.length;
    if (!values.length) return;
    const spec = structuredClone(chart.spec), narrow = place.clientWidth < 560;
    spec.data = {name: "rows", values};
    delete spec.datasets;
    spec.params.forEach(one => { if (one.name === "group") one.value = group; if (one.name === "highlight") one.value = highlight.value; });
    if (narrow) {
      const short = new Map();
      for (const {label} of values) {
        if (short.has(label)) continue;
        let fit = label.length > 24 ? label.slice(0, 8) + "…" + label.slice(-14) : label;
        while ([...short.values()].includes(fit)) fit += "′";  // two configurations stay two
        short.set(label, fit);
      }
      values.forEach(row => { row.label = short.get(row.label); });
      spec.params.forEach(one => { if (one.name === "highlight" && one.value) one.value = short.get(one.value) ?? one.value; });
    }
    if (spec.height?.step) spec.height = spec.height.step * new Set(values.map(row => row.label)).size;
    if (narrow) {
      spec.config.axisY = {labelLimit: Math.round(place.clientWidth * 0.5), titlePadding: 4};
      spec.config.legend = {...spec.config.legend, columns: 1, labelLimit: place.clientWidth - 90};
      spec.config.axisX = {tickCount: 4};
    }
    const result = await vegaEmbed(place, spec, {mode: "vega-lite", renderer: "svg", actions: false, ast: true, logLevel: 1, tooltip: {sanitize: value => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;")}});
    views.set(place, result);
    $("svg", place)?.setAttribute("aria-hidden", "true");  // the place itself has a name, and the table the numbers
  }
  const places = $$("[data-chart]");
  const drawAll = () => Promise.all(places.map(draw));
  function choose() {
    $$("[data-group]").forEach(one => { one.hidden = one.dataset.group !== comparison.value || Boolean(one.dataset.of && !places.some(place => place.dataset.chart === one.dataset.of)); });
    remember();
  }
  function labels() {
    if (!highlight) return;
    const chart = data.charts[places.find(one => one.dataset.chart.startsWith("curves"))?.dataset.chart];
    const found = chart ? [...new Set(rowsOf(chart).filter(row => row.group === comparison.value).map(row => row.label))] : [];
    const before = highlight.value;
    highlight.replaceChildren(new Option("all", ""), ...found.map(label => new Option(label, label)));
    highlight.value = found.includes(before) ? before : "";
  }
  comparison?.addEventListener("change", () => { choose(); labels(); drawAll(); });
  highlight?.addEventListener("change", () => draw(places.find(one => one.dataset.chart.startsWith("curves"))));
  $$("fieldset.choice input").forEach(input => input.addEventListener("change", () => {
    const place = places.find(one => one.dataset.chart.startsWith(input.name));
    place.dataset.chart = input.value;
    choose();
    draw(place);
  }));
  let width = innerWidth;
  addEventListener("resize", () => { if ((width < 620) !== (innerWidth < 620)) { width = innerWidth; drawAll(); } });

  // --- methods: one at a time ------------------------------------------------------------------------------------
  function showMethod() {
    const articles = $$("article.method");
    const asked = articles.find(one => one.id === location.hash.slice(1));
    const chosen = asked ?? articles.find(one => !one.hidden) ?? articles[0];
    articles.forEach(one => { one.hidden = one !== chosen; });
    $$(".chips a").forEach(one => one.hash === "#" + chosen?.id ? one.setAttribute("aria-current", "true") : one.removeAttribute("aria-current"));
    if (asked) asked.scrollIntoView();
  }
  $$("article.method").forEach((one, at) => { one.hidden = at > 0; });
  addEventListener("hashchange", showMethod);

  // --- any two runs ---------------------------------------------------------------------------------------------
  const sides = ["A", "B"].map(side => $("#run-" + side));
  const element = (name, text, more = {}) => Object.assign(document.createElement(name), {textContent: text, ...more});
  function valuesOf(run) {
    return new Map(data.runs.own[run].map(([key, value]) => [data.runs.keys[key], data.runs.values[value]]));
  }
  function comparePair() {
    const place = $("#pair"), runs = sides.map(one => Number(one.value));
    const [a, b] = runs.map(valuesOf);
    const parts = runs.flatMap((run, at) => {
      const line = element("pre", data.runs.commands[run] || "not recorded: this run has neither overrides nor a configuration that a shipped method file leads to", {tabIndex: 0});
      line.setAttribute("aria-label", `command of run ${"AB"[at]}`);
      return [element("h3", `Run ${"AB"[at]}`), line];
    });
    const keys = [...new Set([...a.keys(), ...b.keys()])].filter(key => a.get(key) !== b.get(key));
    const differing = document.createElement("table");
    differing.append(element("caption", keys.length ? (keys.length === 1 ? "1 value differs" : `${keys.length} values differ`) : "These two runs have the same configuration and surroundings"));
    if (keys.length) {
      const head = differing.createTHead().insertRow();
      ["key", "run A", "run B"].forEach(text => head.append(element("th", text, {scope: "col"})));
      const body = differing.createTBody();
      for (const key of keys) {
        const row = body.insertRow();
        row.append(element("th", key, {scope: "row"}), ...[a, b].map(one => element("td", one.get(key) ?? "–")));
      }
    }
    const scroll = element("div", "", {className: "scroll", tabIndex: 0});
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "differences between the two runs");
    scroll.append(differing);
    place.replaceChildren(...parts, scroll);
    remember();
  }
  if (sides[0]) {
    sides[1].value = String(Math.min(1, sides[1].options.length - 1));
    sides.forEach(one => one.addEventListener("change", comparePair));
  }

  // --- a live page: what was chosen outlives a new version ----------------------------------------------------------
  const remembered = () => ["#filter-text", "#comparison", "#highlight", "#run-A", "#run-B", ...filters.map(one => `[data-filter="${one.dataset.filter}"]`)];
  let recalling = false;
  function remember() {
    if (!data.stamp || recalling) return;
    const sorted = table ? $$("thead th", table).map(head => head.getAttribute("aria-sort")) : [];
    const chosen = $$("fieldset.choice input:checked").map(one => one.value);
    sessionStorage.setItem(memory, JSON.stringify({sorted, chosen, scroll: scrollY, values: Object.fromEntries(remembered().map(one => [one, $(one)?.value]))}));
  }
  function recall() {
    const kept = JSON.parse(sessionStorage.getItem(memory) ?? "null");
    if (!data.stamp || !kept) return;
    for (const [selector, value] of Object.entries(kept.values)) {
      const control = $(selector);
      if (control && value !== undefined && (control.tagName !== "SELECT" || [...control.options].some(one => one.value === value))) control.value = value;
    }
    kept.sorted.forEach((direction, at) => { if (direction !== "none") sortBy(at, direction); });
    $$("fieldset.choice input").forEach(input => {
      if (!kept.chosen.includes(input.value)) return;
      input.checked = true;
      places.find(one => one.dataset.chart.startsWith(input.name)).dataset.chart = input.value;
    });
    setTimeout(() => scrollTo(0, kept.scroll), 300);
  }
  async function follow() {
    const live = $("#live");
    live.hidden = false;
    for (;;) {
      try {
        const answer = await fetch("stamp", {cache: "no-store"});
        const stamp = await answer.text();
        live.textContent = `live · looked at ${new Date().toLocaleTimeString()}`;
        if (answer.ok && stamp !== data.stamp) { remember(); location.reload(); return; }
      } catch {
        live.textContent = "live · the server does not answer; this is the last version";
      }
      await new Promise(done => setTimeout(done, 2000));
    }
  }

  recalling = true;
  recall();
  if (comparison) { choose(); labels(); drawAll().then(() => { document.documentElement.dataset.drawn = "true"; }); }
  if (table) filter();
  if (sides[0]) comparePair();
  showMethod();
  recalling = false;
  if (data.stamp) follow();
})();
