"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Theme: the system's, light or dark. If the browser allows no storage, the choice lasts until the page is closed.
  const theme = document.getElementById("theme");
  const themes = { "": "system", light: "light", dark: "dark" };
  const stored = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("emtta-theme") || "";
      localStorage.setItem("emtta-theme", value);
    } catch { /* no storage here */ }
    return "";
  };
  const setTheme = (name) => {
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
    theme.querySelector("span").textContent = themes[name];
    theme.dataset.now = name;
  };
  setTheme(stored() in themes ? stored() : "");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const names = Object.keys(themes);
    const next = names[(names.indexOf(theme.dataset.now) + 1) % names.length];
    setTheme(next);
    stored(next);
  });

  // Above a table that is wider than the screen: a hint to scroll, until it has been scrolled.
  const swipe = (box) => {
    const note = document.createElement("p");
    note.className = "swipe";
    note.textContent = "Scroll sideways for more →";
    note.setAttribute("aria-hidden", "true");
    box.before(note);
    const update = () => { note.hidden = box.scrollWidth <= box.clientWidth + 1 || box.scrollLeft > 8; };
    box.addEventListener("scroll", update, { passive: true });
    new ResizeObserver(update).observe(box);
    update();
  };
  all(".scroll").forEach(swipe);

  // Sorting: numbers by value, text alphabetically; missing values come last in both directions.
  const compare = (a, b, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", { numeric: true }) : a - b;
    return sign * difference;
  };
  const sort = (header) => {
    const table = header.closest("table");
    const column = [...header.parentNode.children].indexOf(header);
    const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", direction);
    const key = (row) => row.children[column].dataset.v ?? row.children[column].textContent.trim();
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((a, b) => compare(key(a), key(b), direction === "ascending" ? 1 : -1));
    body.append(...rows);
  };
  all("table.sortable th[aria-sort] button").forEach((button) =>
    button.addEventListener("click", () => sort(button.closest("th"))),
  );

  // Filtering: hides rows and examples, fades the marks of charts, and switches panels to the chosen method.
  const filter = document.getElementById("filter");
  if (!filter) return;
  const chosen = { group: "", method: "" };
  const find = document.getElementById("find");
  const found = document.getElementById("found");
  const panels = all("[data-panel]");
  const first = {};
  panels.forEach((panel) => (first[panel.tagName] ??= panel.dataset.panel));
  const fits = (element) =>
    ["group", "method"].every((name) => !chosen[name] || !element.dataset[name] || element.dataset[name] === chosen[name]);
  const apply = () => {
    const text = find.value.trim().toLowerCase();
    const matches = (element) => !text || element.textContent.toLowerCase().includes(text);
    all("tbody tr[data-method]").forEach((row) => {
      row.hidden = !(fits(row) && (!row.dataset.group || matches(row)));
    });
    all(".example").forEach((one) => { one.hidden = !(fits(one) && matches(one)); });
    all("svg [data-group], svg [data-method]").forEach((mark) => mark.classList.toggle("dim", !fits(mark)));
    panels.forEach((panel) => {
      const known = panels.some((other) => other.tagName === panel.tagName && other.dataset.panel === chosen.method);
      panel.hidden = panel.dataset.panel !== (known ? chosen.method : first[panel.tagName]);
    });
    const rows = all("#domains tbody tr");
    const shown = rows.filter((row) => !row.hidden).length;
    found.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
  };
  all(".choice button", filter).forEach((button) =>
    button.addEventListener("click", () => {
      const choice = button.closest(".choice");
      all("button", choice).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      chosen[choice.dataset.choice] = button.dataset.pick;
      apply();
    }),
  );
  find.addEventListener("input", apply);
  filter.hidden = false;
  apply();
})();
