setUpTheme(document.getElementById("theme")); // of theme.js, which is put in front
(() => {
  const root = document.documentElement;
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
    };
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const first = column ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? (column ? "ascending" : "descending") : first;
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => { const [x, y] = [key(a, column), key(b, column)]; return x < y ? -sign : x > y ? sign : 0; });
      table.tBodies[0].append(...rows);
    }));
  }

  const stages = [...document.querySelectorAll(".stage")];
  for (const stage of stages) {
    const range = stage.querySelector("input");
    range.addEventListener("input", () => stage.style.setProperty("--cut", `${range.value}%`));
  }
  const show = () => {
    const chosen = (side) => document.querySelector(`input[name=${side}]:checked`)?.value;
    const [left, right] = [chosen("left"), chosen("right")];
    for (const layer of document.querySelectorAll(".layer")) {
      const sides = [left === layer.dataset.layer, right === layer.dataset.layer];
      layer.dataset.side = sides[0] && sides[1] ? "both" : sides[0] ? "left" : sides[1] ? "right" : "none";
    }
  };
  document.querySelectorAll(".sides input[type=radio]").forEach((input) => input.addEventListener("change", show));
  document.getElementById("opacity")?.addEventListener("input", (event) =>
    root.style.setProperty("--opacity", event.target.value / 100));
  show();
})();
