// What the pages do beyond plain HTML: take Airflow's theme, sort tables, open Airflow and MLflow outside the frame.
// Everything is there without it.
(() => {
  "use strict";
  const root = document.documentElement;

  // Airflow keeps its choice as a class of its own root element (and in localStorage); a frame of the same origin may look.
  const chosen = () => {
    try {
      const names = window.parent !== window ? window.parent.document.documentElement.classList : null;
      if (names && names.contains("dark")) return "dark";
      if (names && names.contains("light")) return "light";
      const kept = window.localStorage.getItem("theme");
      return kept === "dark" || kept === "light" ? kept : "";
    } catch {
      return "";
    }
  };
  const dress = () => {
    const theme = chosen();
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  dress();
  window.addEventListener("storage", dress);
  try {
    if (window.parent !== window) {
      root.classList.add("framed");
      new MutationObserver(dress).observe(window.parent.document.documentElement, { attributes: true });
    }
  } catch {
    // a frame of another origin keeps the system's theme
  }

  // Airflow frames us without the right to open windows, so such a link is followed by the page around us.
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[data-leave]") : null;
    if (!link || window.parent === window || event.defaultPrevented) return;
    try {
      const outer = window.parent.document;
      const copy = outer.createElement("a");
      copy.href = link.href;
      copy.rel = "noopener";
      copy.target = "_blank";
      outer.body.append(copy);
      copy.click();
      copy.remove();
      event.preventDefault();
    } catch {
      // then the link opens here
    }
  });

  const keyOf = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.key ?? cell.textContent.trim();
    const number = Number(given);
    return given !== "" && !Number.isNaN(number) ? number : given.toLowerCase();
  };
  const compare = (left, right) => {
    if (typeof left === typeof right) return left < right ? -1 : left > right ? 1 : 0;
    return typeof left === "number" ? -1 : 1;
  };
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row, column), row]);
        rows.sort(([left], [right]) => (up ? 1 : -1) * compare(left, right));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }
})();
