// Draws a caption with the generator beside this file; see README of t2i-zoo, "export --to web".

import * as ort from "./ort.wasm.min.mjs";
import {encode} from "./encoder.mjs";

const at = id => document.getElementById(id);
ort.env.wasm.numThreads = 1; // several need headers that a plain file server does not send
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;

const about = await (await fetch("about.json")).json();
const known = new Set(about.vocabulary);
document.title = at("title").textContent = about.title;
at("model").textContent = `${about.model}, ${about.image_size} px, drawn by this browser`;

/** Random numbers in (0, 1) that a seed repeats (mulberry32). */
function* uniform(seed) {
  for (let state = seed >>> 0; ;) {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    yield (((x ^ (x >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  }
}

/** Noise of some samples, flat; a seed gives other noise than in Python. */
export function noiseOf(seed, count, {dim, kind}) {
  const next = uniform(seed), found = new Float32Array(count * dim);
  for (let i = 0; i < found.length; i++) {
    const one = next.next().value;
    found[i] = kind === "normal"
      ? Math.sqrt(-2 * Math.log(one)) * Math.cos(2 * Math.PI * next.next().value) : 2 * one - 1;
  }
  return found;
}

const repeated = (values, count) => Float32Array.from({length: values.length * count}, (_, i) => values[i % values.length]);

/** What the graph reads. */
export function inputsOf(text, noise, count) {
  const feeds = {
    noise: new ort.Tensor("float32", noise, [count, about.noise.dim]),
    sentence: new ort.Tensor("float32", repeated(text.sentence, count), [count, about.sentence_dim]),
  };
  if (about.word_dim) {
    const length = text.vectors.length, flat = text.vectors.flatMap(vector => [...vector]);
    feeds.words = new ort.Tensor("float32", repeated(flat, count), [count, length, about.word_dim]);
    feeds.mask = new ort.Tensor("bool", new Uint8Array(count * length).fill(1), [count, length]);
  }
  return feeds;
}

/** Pixels of one image (3, S, S) in [-1, 1] on a canvas of its own. */
function canvasOf(image, side) {
  const canvas = document.createElement("canvas"), plane = side * side;
  canvas.width = canvas.height = side;
  const pixels = new ImageData(side, side);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = Math.round((image[c * plane + i] + 1) * 127.5);
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

/** Images (count, 3, S, S) in [-1, 1], flat. */
async function imagesOf(feeds) {
  const {images} = await (await session).run(feeds);
  return images;
}

const session = ort.InferenceSession.create("generator.onnx");
let busy = false, again = false;

async function draw() {
  if (busy) { again = true; return; } // the newest request is drawn once this one is done
  const caption = at("caption").value.trim(), count = Number(at("count").value), seed = Number(at("seed").value);
  at("seed-value").textContent = seed;
  at("count-value").textContent = count;
  const text = encode(caption.slice(0, 1000), {...about.text_encoder, dim: about.sentence_dim, former: about.former});
  if (!text.words.length) {
    at("notes").textContent = "Write what the image should show.";
    return;
  }
  const unknown = [...new Set(text.words.filter(word => known.size && !known.has(word)))];
  at("notes").textContent = unknown.length ? `No training caption holds ${unknown.join(", ")}.` : "";
  busy = true;
  try {
    const images = await imagesOf(inputsOf(text, noiseOf(seed, count, about.noise), count));
    const side = images.dims[3], size = 3 * side * side;
    at("images").replaceChildren(...Array.from({length: count}, (_, i) => {
      const canvas = canvasOf(images.data.subarray(i * size, (i + 1) * size), side), link = document.createElement("a");
      link.title = "Save as PNG";
      link.download = `${caption.replace(/[^\p{L}\p{N}]+/gu, "_").slice(0, 60)}_${seed}_${i}.png`;
      link.href = canvas.toDataURL("image/png");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", caption);
      link.append(canvas);
      return link;
    }));
  } catch (error) {
    at("notes").textContent = `This browser could not draw: ${error.message}`;
  } finally {
    busy = false;
  }
  if (again) { again = false; await draw(); }
}

at("form").addEventListener("submit", event => { event.preventDefault(); draw(); });
for (const id of ["seed", "count"]) at(id).addEventListener("input", draw);
at("another").addEventListener("click", () => { at("seed").value = (Number(at("seed").value) + 1) % 1000; draw(); });
globalThis.zoo = {about, encode, inputsOf, imagesOf, ort};
await draw();
document.body.dataset.ready = "yes";
