"use strict";
function key(row, column) {
  const cell = row.cells[column], raw = cell.dataset.value;
  if (raw === undefined) return [1, cell.textContent];
  return raw === "" ? [2, 0] : [0, Number(raw)];
}
function compare(a, b, sign) {
  if (a[0] !== b[0]) return a[0] === 2 || b[0] === 2 ? a[0] - b[0] : sign * (a[0] - b[0]);
  return sign * (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0);
}
for (const head of document.querySelectorAll("th")) {
  const button = head.querySelector("button");
  if (!button) continue;
  button.addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort((a, b) => compare(a[0], b[0], down ? -1 : 1));
    body.append(...rows.map((pair) => pair[1]));
  });
}
