// Comfort for pages that work without it: live pieces, uploads straight to the store, a preview, keys to go on.
"use strict";

const main = document.getElementById("main");
document.documentElement.classList.add("js");

// --- Pieces of a page that follow what happens ---------------------------------------------------------------------

let stream = null;

function follow() {
  if (!main.dataset.live || stream || document.hidden) return;
  stream = new EventSource(main.dataset.live);
  stream.addEventListener("pieces", (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) replacePiece(id, html);
  });
  stream.addEventListener("gone", () => {
    leave();
    location.reload();
  });
}

function leave() {
  if (stream) stream.close();
  stream = null;
}

function replacePiece(id, html) {
  const old = document.getElementById(id);
  const piece = new DOMParser().parseFromString(html, "text/html").getElementById(id);
  if (!old || !piece) return;
  if (old.tagName === "DIV" && id === "jobs" && replaceRows(old, piece)) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const said = old.innerText;
  old.replaceWith(document.adoptNode(piece));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  if (id === "job-state") tellState(piece, said);
}

// Row by row where the rows are the same ones, so that a link does not go from under a finger.
function replaceRows(old, piece) {
  const rows = [...old.querySelectorAll("tbody tr")];
  const fresh = [...piece.querySelectorAll("tbody tr")];
  if (!rows.length || rows.length !== fresh.length || rows.some((row, n) => row.id !== fresh[n].id)) return false;
  rows.forEach((row, n) => {
    [...row.cells].forEach((cell, c) => {
      if (cell.innerHTML !== fresh[n].cells[c].innerHTML) cell.innerHTML = fresh[n].cells[c].innerHTML;
    });
  });
  return true;
}

const plainTitle = document.title;

function tellState(piece, before) {
  document.title = piece.dataset.title ? `${piece.dataset.title} ${plainTitle}` : plainTitle;
  if (piece.innerText !== before) document.getElementById("said").textContent = `The job is ${piece.innerText.trim()}`;
}

follow();
// A browser opens few connections to a host: a tab that nobody sees gives its own back.
document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
window.addEventListener("pagehide", leave);
window.addEventListener("pageshow", follow);

// --- Buttons -------------------------------------------------------------------------------------------------------

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    await navigator.clipboard.writeText(button.dataset.copy);
    document.getElementById("said").textContent = "Copied";
    const words = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = words), 1200);
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select") || event.altKey || event.ctrlKey || event.metaKey) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  document.querySelector(`a[rel=${rel}]`)?.click();
});

// Pictures that the browser cannot show, such as TIFF.
function noteMissing(image) {
  const note = document.createElement("span");
  note.className = "no-picture";
  note.textContent = "no preview";
  image.replaceWith(note);
}
document.addEventListener("error", (event) => event.target.tagName === "IMG" && noteMissing(event.target), true);
for (const image of document.querySelectorAll("main img")) if (image.complete && !image.naturalWidth && image.loading !== "lazy") noteMissing(image);

// --- The preview of prompts ----------------------------------------------------------------------------------------

const prompts = document.querySelector("[data-preview]");

function preview() {
  const lines = prompts.value.split("\n").map((line) => line.trim()).filter(Boolean);
  const box = document.getElementById(prompts.dataset.preview);
  const most = Number(prompts.dataset.most);
  box.hidden = !lines.length;
  const over = lines.length > most ? `; at most ${most.toLocaleString("en")} are accepted here` : "";
  box.querySelector("p").textContent = `${lines.length.toLocaleString("en")} prompt${lines.length === 1 ? "" : "s"}${over}`;
  box.querySelector("ol").replaceChildren(...lines.slice(0, 20).map((line) => {
    const entry = document.createElement("li");
    entry.textContent = line;
    return entry;
  }));
}
if (prompts) {
  prompts.addEventListener("input", preview);
  preview();
}

// --- Pictures straight to the store --------------------------------------------------------------------------------

const LINKS_AT_ONCE = 100, SENT_AT_ONCE = 4;
const uploading = document.querySelector("form[data-upload]");

function send(path, fields) {
  const body = new FormData();
  body.append("form_token", uploading.elements.form_token.value);
  for (const [name, value] of fields) body.append(name, value);
  return fetch(path, { method: "POST", body, headers: { Accept: "application/json" } });
}

async function asked(path, fields) {
  const answer = await send(path, fields);
  if (!answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    throw new Error(page.querySelector("main p")?.textContent ?? `the server answered ${answer.status}`);
  }
  return answer.json();
}

async function upload(files, tell) {
  const { upload: id } = await asked(`${uploading.dataset.upload}/start`, []);
  const total = files.reduce((sum, file) => sum + file.size, 0);
  const taken = [];
  let sent = 0, bytes = 0;
  for (let first = 0; first < files.length; first += LINKS_AT_ONCE) {
    const some = files.slice(first, first + LINKS_AT_ONCE);
    const fields = [...some.map((file) => ["file", file.name]), ...clashing(some, taken).map((name) => ["taken", name])];
    const { names, urls } = await asked(`${uploading.dataset.upload}/${id}/links`, fields);
    taken.push(...names);
    const waiting = some.map((file, n) => [file, urls[n]]);
    const sender = async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        const [file, url] = next;
        const answer = await fetch(url, { method: "PUT", body: file, headers: { "Content-Type": "application/octet-stream" } });
        if (!answer.ok) throw new Error(`the store did not take ${file.name} (${answer.status})`);
        sent += 1;
        bytes += file.size;
        tell(sent, files.length, total ? bytes / total : 1);
      }
    };
    await Promise.all(Array.from({ length: SENT_AT_ONCE }, sender));
  }
  return id;
}

// Of the names that were given already, those that could be given again.
function clashing(files, taken) {
  const stems = files.map((file) => file.name.replace(/\.[^.]*$/, ""));
  return taken.filter((name) => stems.some((stem) => name.startsWith(stem.slice(0, 20)))).slice(0, 500);
}

if (uploading) {
  const field = uploading.elements.pictures;
  const box = field.closest(".drop");
  const status = document.getElementById("sending");
  field.addEventListener("change", () => (status.textContent = field.files.length ? `${field.files.length} chosen` : ""));
  for (const name of ["dragover", "dragleave", "drop"]) {
    box.addEventListener(name, (event) => {
      event.preventDefault();
      box.classList.toggle("over", name === "dragover");
      if (name === "drop") {
        field.files = event.dataTransfer.files;
        field.dispatchEvent(new Event("change"));
      }
    });
  }
  uploading.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = document.getElementById("send");
    button.disabled = true;
    try {
      const id = await upload([...field.files], (sent, all, share) => {
        status.textContent = `Sent ${sent.toLocaleString("en")} of ${all.toLocaleString("en")}, ${Math.floor(100 * share)}%`;
      });
      uploading.elements.upload.value = id;
      field.disabled = true; // the files are there already
      uploading.submit();
    } catch (error) {
      status.textContent = `Not sent: ${error.message}. Nothing was submitted; try again.`;
      button.disabled = false;
    }
  });
}
