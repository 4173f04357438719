"use strict";
// Filters the cards, remembers marks in this browser, and saves them as the list to apply.
const cards = Array.from(document.querySelectorAll("article"));
const [kind, name, count] = ["kind", "class", "count"].map((id) => document.getElementById(id));
const store = `labels to check: ${document.title}`;
const key = (card) => JSON.stringify([card.dataset.image, card.dataset.class, card.dataset.label]);
const marked = (card) => card.querySelector("input:checked")?.value ?? "";

let marks = {};
try {
  marks = JSON.parse(localStorage.getItem(store)) ?? {};
} catch { /* a browser may keep nothing for files */ }

const show = () => {
  let shown = 0;
  for (const card of cards) {
    const isKind = kind.value === "open" ? !marked(card) : ["", card.dataset.label].includes(kind.value);
    card.hidden = !(isKind && ["", card.dataset.class].includes(name.value));
    shown += !card.hidden;
  }
  const done = cards.filter(marked).length;
  count.textContent = `${shown} shown, ${done} of ${cards.length} marked`;
};

const color = (card) => {
  const mark = marked(card);
  card.classList.toggle("wrong", mark === card.dataset.suggestion);
  card.classList.toggle("right", mark === card.dataset.label);
};

for (const card of cards) {
  const before = marks[key(card)];
  for (const input of card.querySelectorAll("input")) {
    input.checked = input.value === before;
    input.addEventListener("change", () => {
      marks[key(card)] = input.value;
      try {
        localStorage.setItem(store, JSON.stringify(marks));
      } catch { /* as above */ }
      color(card);
      count.textContent = count.textContent.replace(/\d+ of/, `${cards.filter(marked).length} of`);
    });
  }
  color(card);
}
kind.addEventListener("change", show);
name.addEventListener("change", show);
show();

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const header = {{ header | tojson }};
const row = (card, index) => {
  const own = { ...card.dataset, number: String(index + 1), corrected: marked(card) };
  return header.map((column) => cell(own[column])).join(",");
};
document.getElementById("save").addEventListener("click", () => {
  const text = `${[header.join(","), ...cards.map(row)].join("\r\n")}\r\n`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  link.download = "corrected.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
