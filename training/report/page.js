"use strict";
// Sorts and filters the table of classes; without this script it is whole, best class first.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const card = table.closest(".card");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const isMissing = (cell) => cell.textContent === "\u2013";
  const number = (cell) => (isMissing(cell) ? Number.NaN : Number(cell.textContent));

  const isText = (column) => rows.some((row) => {
    const cell = row.cells[column];
    return Number.isNaN(number(cell)) && !isMissing(cell);
  });

  const compare = (column, sign) => {
    const text = (row) => row.cells[column].textContent;
    if (isText(column)) {
      return (one, other) => sign * text(one).localeCompare(text(other), undefined, { numeric: true });
    }
    const last = sign * Infinity; // a missing number comes last in both directions
    const value = (row) => (isMissing(row.cells[column]) ? last : number(row.cells[column]));
    return (one, other) => (value(one) === value(other) ? 0 : sign * (value(one) - value(other)));
  };

  const headings = Array.from(table.tHead.rows[0].cells);
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const now = heading.getAttribute("aria-sort");
      const first = isText(column) ? "ascending" : "descending";
      const turned = now === "ascending" ? "descending" : "ascending";
      const next = now === null ? first : turned;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", next);
      rows.sort(compare(column, next === "ascending" ? 1 : -1));
      body.append(...rows);
    });
  });

  const [name, group] = ["name", "group"].map((key) => card.querySelector(`[data-filter=${key}]`));
  const count = card.querySelector("[data-count]");
  const filter = () => {
    const text = name.value.trim().toLocaleLowerCase();
    let shown = 0;
    for (const row of rows) {
      const isShown = row.cells[0].textContent.toLocaleLowerCase().includes(text)
        && (group.value === "" || row.cells[1].textContent === group.value);
      row.hidden = !isShown;
      shown += isShown;
    }
    count.textContent = `${shown} of ${rows.length} classes`;
  };
  name.addEventListener("input", filter);
  group.addEventListener("change", filter);
  filter();
  card.querySelector(".controls").hidden = false;
}

// What is closed on the screen is open on paper.
const closed = () => document.querySelectorAll("details:not([open])");
let opened = [];
addEventListener("beforeprint", () => {
  opened = Array.from(closed());
  opened.forEach((details) => { details.open = true; });
});
addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
