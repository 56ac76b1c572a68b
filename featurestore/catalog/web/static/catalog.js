"use strict";
// Pages are whole without this. It makes the search answer while one types, and keeps what changes up to date.

const search = document.getElementById("search");
const results = document.getElementById("results");

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
  if (event.key === "Escape" && typing === search) search.blur();
  if (results && (event.key === "ArrowDown" || event.key === "ArrowUp")) moveIn(results, event, typing);
});

/** The arrow keys go from the search field through the results and back. */
function moveIn(list, event, typing) {
  if (typing && typing !== search) return;
  const links = [...list.querySelectorAll(".entry .what a")];
  const at = links.indexOf(document.activeElement);
  if (at < 0 && typing !== search) return;
  event.preventDefault();
  const next = at + (event.key === "ArrowDown" ? 1 : -1);
  if (next < 0) search.focus();
  else links[Math.min(next, links.length - 1)]?.focus();
}

const narrowScreen = window.matchMedia("(max-width: 760px)");

/** Filters are folded where there is no room for them, unless somebody has unfolded them. */
function foldFilters(isOpen) {
  const details = results?.querySelector(".filters details");
  if (details) details.open = isOpen || !narrowScreen.matches;
}

if (results) {
  foldFilters(false);
  narrowScreen.addEventListener("change", () => foldFilters(false));
  let asked = null;
  let pause = 0;
  const ask = async () => {
    asked?.abort();
    const mine = (asked = new AbortController());
    const query = new URLSearchParams(new FormData(search.form));
    if (!search.value.trim()) query.delete("q");
    history.replaceState(null, "", query.size ? `/?${query}` : "/");
    query.set("part", "results");
    try {
      const answer = await fetch(`/?${query}`, { signal: mine.signal });
      if (!answer.ok) return;
      const text = await answer.text();
      if (asked !== mine) return; // a later question is on its way
      const wasOpen = results.querySelector(".filters details")?.open ?? false;
      results.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
      foldFilters(wasOpen && narrowScreen.matches);
    } catch (error) {
      if (error.name !== "AbortError") search.form.submit();
    }
  };
  search.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(ask, 60);
  });
  search.form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(pause);
    ask();
  });
}

for (const field of document.querySelectorAll("[data-filters]")) {
  const rows = document.getElementById(field.dataset.filters).tBodies[0].rows;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
}

for (const box of document.querySelectorAll(".snippets")) {
  const parts = [...box.children];
  const tabs = document.createElement("div");
  tabs.className = "tabs";
  tabs.setAttribute("role", "tablist");
  tabs.setAttribute("aria-label", "Ways to ask");
  const buttons = parts.map((part, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = part.dataset.title;
    button.id = `tab-${at}`;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", `panel-${at}`);
    part.id = `panel-${at}`;
    part.setAttribute("role", "tabpanel");
    part.setAttribute("aria-labelledby", button.id);
    button.addEventListener("click", () => choose(at));
    tabs.append(button);
    return button;
  });
  const choose = (chosen) => {
    buttons.forEach((button, at) => {
      button.setAttribute("aria-selected", String(at === chosen));
      button.tabIndex = at === chosen ? 0 : -1;
      parts[at].hidden = at !== chosen;
    });
  };
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = buttons.indexOf(event.target);
    if (!step || at < 0) return;
    const next = (at + step + buttons.length) % buttons.length;
    choose(next);
    buttons[next].focus();
  });
  const bar = document.createElement("div");
  bar.className = "tabs";
  if (navigator.clipboard) {
    const copy = document.createElement("button");
    copy.type = "button";
    copy.className = "copy";
    copy.textContent = "Copy";
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(parts.find((part) => !part.hidden).querySelector("code").textContent);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    bar.append(tabs, copy);
  } else {
    bar.append(tabs);
  }
  box.prepend(bar);
  box.classList.add("tabbed");
  choose(0);
}

for (const part of document.querySelectorAll("[data-live]")) {
  const place = part.querySelector(".live");
  setInterval(async () => {
    if (document.hidden || place.contains(document.activeElement)) return;
    const answer = await fetch(part.dataset.live).catch(() => null);
    if (answer?.ok) {
      const text = await answer.text();
      place.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
    }
  }, 5000);
}

for (const form of document.querySelectorAll("form.try")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const place = document.getElementById("answer");
    place.setAttribute("aria-busy", "true");
    const address = event.submitter?.getAttribute("formaction") || form.getAttribute("action");
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(address, { method: "POST", body, headers: { "x-part": "answer" } });
      const text = await answer.text();
      place.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
    } catch {
      place.textContent = "The catalog does not answer.";
    }
    place.removeAttribute("aria-busy");
  });
}
