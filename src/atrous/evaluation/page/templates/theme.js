// The button that sets light or dark colours; the choice is remembered where the browser has storage.
const themes = { "": "as the system", light: "light", dark: "dark" };

function stored(value) {
  try {
    if (value !== undefined) localStorage.setItem("atrous-theme", value);
    return localStorage.getItem("atrous-theme");
  } catch {
    return null;
  }
}

export function setUpTheme(button) {
  const paint = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.setAttribute("aria-label", `Colours: ${themes[theme]}`);
    button.title = button.getAttribute("aria-label");
  };
  let theme = stored() in themes ? stored() : "";
  paint(theme);
  button.addEventListener("click", () => {
    const names = Object.keys(themes);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    stored(theme);
    paint(theme);
  });
}
