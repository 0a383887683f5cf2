"use strict";

const COLOURS = 7; // Of the most probable genres; the others share one.
const GIVEN = "✓"; // Of several genres a clip, one that reaches its threshold.
const MOST_SONGS = 100; // That are taken at once.
const byId = (name) => document.getElementById(name);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function make(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

let model = null;

async function learnModel() {
  const about = byId("about");
  try {
    const response = await fetch("model");
    if (!response.ok) throw new Error(response.statusText);
    model = await response.json();
  } catch {
    about.textContent = "The program that serves this page has ended; start it again.";
    return;
  }
  about.textContent = `The model ${model.model} tells ${model.genres.length} genres apart.`;
  if (model.paths.length) {
    about.textContent += ` A song has all that reach their thresholds, marked ${GIVEN}.`;
  }
  byId("synthetic").hidden = !model.synthetic;
}
const ready = learnModel();

// Songs are listened to one after the other.
let queue = ready;

// Takes songs, each a file and the name that it is shown by; tells what is not taken.
function addSongs(songs, others = 0) {
  const sentences = songs.length ? [] : ["No song was found in what was dropped."];
  if (others) sentences.push(`Files left out, as no audio by their names: ${others}.`);
  if (songs.length > MOST_SONGS) {
    sentences.push(`Only the first ${MOST_SONGS} of ${songs.length} songs are taken; ` +
      "for a catalogue there is: ./launch.sh label");
  }
  byId("taken").textContent = sentences.join(" ");
  for (const { file, name } of songs.slice(0, MOST_SONGS)) {
    const card = byId("song").content.cloneNode(true).firstElementChild;
    card.querySelector("h2").textContent = name;
    byId("songs").prepend(card);
    queue = queue.then(() => listen(file, card));
  }
}

const nameFiles = (files) => [...files].map((file) => ({ file, name: file.name }));

// All files of what was dropped, in the order of their names.
async function findFiles(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, name: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) { // It hands on a hundred at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    inside.push(...some);
  }
  inside.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(inside.map(findFiles))).flat();
}

// A file that is dropped itself is meant; of a folder, what is audio by its name.
async function addDropped(entries) {
  await ready;
  const songs = [];
  let others = 0;
  for (const entry of entries) {
    let found;
    try {
      found = await findFiles(entry);
    } catch (error) {
      byId("taken").textContent = `${entry.name} cannot be read: ${error.message}`;
      return;
    }
    const isAudio = ({ name }) => model === null ||
      model.extensions.includes(name.split(".").pop().toLowerCase());
    const taken = entry.isFile ? found : found.filter(isAudio);
    others += found.length - taken.length;
    songs.push(...taken);
  }
  addSongs(songs, others);
}

function fail(card, sentence) {
  const outcome = card.querySelector(".outcome");
  outcome.className = "outcome failed";
  outcome.setAttribute("role", "alert");
  outcome.textContent = sentence;
}

async function listen(file, card) {
  const outcome = card.querySelector(".outcome");
  if (model === null) return fail(card, "There is no model to ask.");
  if (file.size > model.max_bytes) {
    const most = Math.floor(model.max_bytes / 1e6);
    return fail(card, `The file is too large: up to ${most} MB are taken.`);
  }
  if (file.size === 0) return fail(card, "The file is empty.");
  outcome.textContent = "Listening …";
  let response, answer;
  try {
    response = await fetch("listen", { method: "POST", body: file });
    answer = await response.json();
  } catch {
    return fail(card, "No answer came: has the program ended, or the file gone?");
  }
  if (answer.error) return fail(card, answer.error);
  show(file, card, answer);
}

function show(file, card, answer) {
  const find = (selector) => card.querySelector(selector);
  const order = rank(answer);
  const parts = answer.excerpts.length;
  find(".outcome").textContent =
    `${clock(answer.seconds)} long; ` +
    (parts === 1 ? "one part was heard." : `${parts} parts of 30 s were heard.`);
  find(".lead").textContent = tell(answer, 3);
  byId("status").textContent = `${find("h2").textContent}: ${tell(answer, 1)}`;
  find(".result").hidden = false;
  const player = find("audio");
  player.src = URL.createObjectURL(file);
  player.setAttribute("aria-label", `Player of ${find("h2").textContent}`);
  player.addEventListener("error", () => { find(".unplayable").hidden = false; });
  drawTime(card, answer, order, player);
  drawTable(find("table"), answer, order);
  drawSimilar(find(".similar"), answer.similar);
}

// Indices of genres: those that a song or part of it is given, then the others.
function rank({ genres, given = [] }) {
  const others = [...genres.keys()].filter((index) => !given.includes(index));
  return [...given, ...others.sort((a, b) => genres[b] - genres[a])];
}

// The most probable genres; of several a clip, all that it is given.
function tell(heard, count) {
  const name = (names) => (index) => `${names[index]} ${percent(heard.genres[index])}`;
  if (heard.given?.length) return heard.given.map(name(model.paths)).join(", ");
  const best = rank(heard).slice(0, count).map(name(model.genres)).join(", ");
  return heard.given ? `No genre reaches its threshold; the most probable: ${best}` : best;
}

const mark = (heard, index) => (heard.given?.includes(index) ? `${GIVEN} ` : "");

function drawTime(card, answer, order, player) {
  const find = (selector) => card.querySelector(selector);
  const place = (element, part) => {
    element.style.left = `${100 * part.start / answer.seconds}%`;
    element.style.width = `${100 * (part.end - part.start) / answer.seconds}%`;
  };
  const shown = order.slice(0, COLOURS);
  const others = order.slice(COLOURS);
  find(".picture").setAttribute("aria-label",
    "Mel image: low notes at the bottom, loud ones bright");
  for (const part of answer.excerpts) {
    const image = make("img", undefined, { src: part.mel, alt: "" });
    place(image, part);
    find(".picture").append(image);
    const label = `${clock(part.start)} to ${clock(part.end)}: ${tell(part, 3)}`;
    const column = make("button", undefined,
      { type: "button", "aria-label": `Play from ${label}`, title: label });
    place(column, part);
    const shares = shown.map((index) => part.genres[index]);
    shares.push(others.reduce((sum, index) => sum + part.genres[index], 0));
    const total = Math.max(1, shares.reduce((sum, share) => sum + share, 0));
    shares.forEach((share, rank) => {
      const block = make("span");
      block.style.height = `${100 * share / total}%`;
      block.style.background = colour(rank);
      column.append(block);
    });
    column.addEventListener("click", () => {
      player.currentTime = part.start;
      player.play().catch(() => {});
    });
    find(".columns").append(column);
  }
  shown.forEach((index, rank) => addLegend(find(".legend"), rank,
    `${mark(answer, index)}${model.genres[index]} ${percent(answer.genres[index])}`));
  if (others.length) addLegend(find(".legend"), COLOURS, "others");
  for (const share of [0, 0.5, 1]) {
    find(".ticks").append(make("span", clock(share * answer.seconds)));
  }
  const follow = () => {
    const share = Math.min(1, player.currentTime / answer.seconds);
    find(".playhead").style.left = `calc(${100 * share}% - ${2 * share}px)`;
  };
  const step = () => {
    follow();
    if (!player.paused) requestAnimationFrame(step);
  };
  player.addEventListener("play", step);
  for (const name of ["timeupdate", "seeking", "seeked"]) {
    player.addEventListener(name, follow);
  }
}

function colour(rank) {
  return rank < COLOURS ? `var(--c${rank})` : "var(--other)";
}

function addLegend(list, rank, text) {
  const swatch = make("i");
  swatch.style.background = colour(rank);
  const item = make("li");
  item.append(swatch, text);
  list.append(item);
}

function drawTable(table, answer, order) {
  const head = make("tr");
  const several = model.paths.length > 0;
  const columns = ["genre", ...(several ? ["threshold"] : []), "song"];
  head.append(...columns.map((name) => make("th", name, { scope: "col" })));
  for (const part of answer.excerpts) {
    head.append(make("th", clock(part.start), { scope: "col" }));
  }
  const top = make("thead");
  top.append(head);
  const body = make("tbody");
  for (const index of order) {
    const row = make("tr");
    row.append(make("th", (several ? model.paths : model.genres)[index], { scope: "row" }));
    if (several) row.append(make("td", percent(model.thresholds[index])));
    for (const heard of [answer, ...answer.excerpts]) {
      row.append(make("td", mark(heard, index) + percent(heard.genres[index])));
    }
    body.append(row);
  }
  const note = several ? `; ${GIVEN} those that reach the genre's threshold` : "";
  table.append(make("caption", `Probabilities of the song and of its parts${note}`), top, body);
}

function drawSimilar(section, clips) {
  if (!model.training_clips) return;
  section.hidden = false;
  fetch("model").then((response) => response.json()).then((latest) => {
    const heard = latest.training_clips_heard;
    section.querySelector(".note").textContent = heard < latest.training_clips
      ? `Of ${heard} training clips heard so far, of ${latest.training_clips}.`
      : `Of ${heard} training clips.`;
  }).catch(() => {});
  for (const clip of clips) {
    const item = make("li");
    item.append(make("strong", clip.genre), make("div", `clip ${clip.track_id}`),
      make("div", `similarity ${clip.similarity.toFixed(2)}`));
    if (clip.playable) {
      item.append(make("audio", undefined, {
        controls: "", preload: "none", src: `clip/${encodeURIComponent(clip.track_id)}`,
        "aria-label": `Player of clip ${clip.track_id}`,
      }));
    }
    section.querySelector("ol").append(item);
  }
}

byId("files").addEventListener("change", (event) => {
  addSongs(nameFiles(event.target.files));
  event.target.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  // To be asked for at once: what was dropped is out of reach later.
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.());
  if (entries.every(Boolean)) addDropped(entries);
  else addSongs(nameFiles(event.dataTransfer.files));
});

// One song plays at a time.
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) {
    if (player !== event.target) player.pause();
  }
}, true);
