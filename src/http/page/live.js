// Keeps the page as the controller last showed itself, and says an operator's word.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");

  // Live: the stream only says that something has changed; the page asks for itself again and puts
  // in what differs. At most one question is under way, and one more is due.
  let asking = false, due = false;

  async function refresh() {
    if (asking) { due = true; return; }
    asking = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* The stream notices that rollbackd is away, and comes back with it. */ }
    asking = false;
    if (due) { due = false; refresh(); }
  }

  // Makes `old` like `next`, and leaves standing what is alike in both: a press that began on a
  // button has to end on the same one.
  function mend(old, next) {
    if (old.isEqualNode(next)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) { old.nodeValue = next.nodeValue; return; }
    for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of next.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    let at = old.firstChild;
    const drop = () => { const gone = at; at = at.nextSibling; gone.remove(); };
    for (const child of [...next.childNodes]) {
      let same = at;
      while (same && (same.nodeName !== child.nodeName || same.id !== child.id)) same = same.nextSibling;
      if (!same) { old.insertBefore(child, at); continue; }
      while (at !== same) drop();
      at = at.nextSibling;
      mend(same, child);
    }
    while (at) drop();
  }

  function put(fresh) {
    const focus = document.activeElement?.id;
    for (const old of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(old.id);
      if (!next) { old.remove(); continue; }
      for (const open of old.querySelectorAll("details[open][id]")) {
        const same = next.querySelector(`#${CSS.escape(open.id)}`);
        if (same) same.open = true;
      }
      mend(old, next);
    }
    const main = $("content"), seen = fresh.getElementById("content");
    if (seen.dataset.say !== main.dataset.say) $("news").textContent = seen.dataset.say;
    Object.assign(main.dataset, seen.dataset);
    if (focus && document.activeElement?.id !== focus && !$("act")?.open) $(focus)?.focus();
  }

  const link = $("link");
  const stream = new EventSource("/api/v1/events");
  stream.onopen = () => { link.textContent = "live"; refresh(); };
  stream.onerror = () => { link.textContent = "not live, trying again"; };
  stream.addEventListener("view", refresh);
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // An operator's word: asked for a reason, sent, and what came of it said in the dialog.
  const dialog = $("act");
  if (!dialog) return;
  const form = dialog.querySelector("form"), error = $("act-error"), confirm = $("act-confirm");
  let chosen = null;

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-act]");
    if (!button) return;
    // As it is now: the page goes on under the dialog.
    chosen = { ...button.dataset };
    const label = button.textContent.replace(/\s*…\s*$/, "");
    $("act-title").textContent = `${label}: ${chosen.fleet}`;
    $("act-effect").textContent = chosen.effect;
    $("act-lasting").hidden = chosen.act !== "pause";
    confirm.textContent = label;
    confirm.disabled = false;
    error.textContent = "";
    form.reset();
    dialog.returnValue = button.id;
    dialog.showModal();
    $("act-reason").focus();
  });
  $("act-cancel").addEventListener("click", () => dialog.close());
  // The page may have been written anew meanwhile.
  dialog.addEventListener("close", () => { $(dialog.returnValue)?.focus(); });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = new FormData(form);
    const word = { reason: said.get("reason") };
    if (said.get("actor")?.trim()) word.actor = said.get("actor");
    if (chosen.version) word.version = chosen.version;
    if (chosen.to) word.to = chosen.to;
    if (chosen.act === "pause" && said.get("for")?.trim()) word.for = said.get("for").trim();
    confirm.disabled = true;
    error.textContent = "";
    try {
      const answer = await fetch(
        `/api/v1/fleets/${encodeURIComponent(chosen.fleet)}/${chosen.act}`,
        { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(word) });
      const told = await answer.json();
      if (answer.ok) {
        dialog.close();
        $("news").textContent = `${told.fleet}: ${told.done}`;
        refresh();
      } else {
        error.textContent = told.detail ?? `Refused (${answer.status}).`;
      }
    } catch {
      error.textContent = "rollbackd did not answer. See in the ledger whether it was done.";
    }
    confirm.disabled = false;
  });
})();
