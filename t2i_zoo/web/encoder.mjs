// The hashing text encoder of t2i_zoo/text/hashing.py and tokens.py, number for number.

const PERSON = "t2i-hashing-1", POSITIONS = 16;
const TRIGRAM = 0.375, BIGRAM = 0.75, FUNCTION = 0.25;
const FUNCTION_WORDS = new Set((
  "a an and are as at be but by for from has have in into is it its of on or that the their them there " +
  "these they this those to very was were which who whose will with").split(" "));

// BLAKE2b (RFC 7693) with 64 bytes of digest, no key and a personalization.
const MASK = (1n << 64n) - 1n;
const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n];
const SIGMA = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
].map(row => [...row].map(digit => parseInt(digit, 16)));
const COLUMNS = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
                 [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]];
const rotated = (x, n) => ((x >> n) | (x << (64n - n))) & MASK;

/** The digest of some text as sixteen 32-bit numbers. */
export function digest(text, person = PERSON) {
  const bytes = new TextEncoder().encode(text), parameters = new DataView(new ArrayBuffer(64));
  parameters.setUint32(0, 0x01010040, true); // 64 bytes of digest, one leaf
  new TextEncoder().encode(person).forEach((byte, i) => parameters.setUint8(48 + i, byte));
  const state = IV.map((word, i) => word ^ parameters.getBigUint64(8 * i, true));
  for (let start = 0; start === 0 || start < bytes.length; start += 128) {
    const block = new DataView(new ArrayBuffer(128)), end = Math.min(start + 128, bytes.length);
    bytes.subarray(start, end).forEach((byte, i) => block.setUint8(i, byte));
    const words = Array.from({length: 16}, (_, i) => block.getBigUint64(8 * i, true));
    const v = [...state, ...IV];
    v[12] ^= BigInt(end);
    if (end === bytes.length) v[14] ^= MASK;
    for (let round = 0; round < 12; round++) {
      const order = SIGMA[round % 10];
      COLUMNS.forEach(([a, b, c, d], i) => {
        v[a] = (v[a] + v[b] + words[order[2 * i]]) & MASK;
        v[d] = rotated(v[d] ^ v[a], 32n);
        v[c] = (v[c] + v[d]) & MASK;
        v[b] = rotated(v[b] ^ v[c], 24n);
        v[a] = (v[a] + v[b] + words[order[2 * i + 1]]) & MASK;
        v[d] = rotated(v[d] ^ v[a], 16n);
        v[c] = (v[c] + v[d]) & MASK;
        v[b] = rotated(v[b] ^ v[c], 63n);
      });
    }
    for (let i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
  }
  return state.flatMap(word => [Number(word & 0xffffffffn), Number(word >> 32n)]);
}

const WORD = /[\p{L}\p{N}][\p{L}\p{N}\p{M}]*(?:['-][\p{L}\p{N}][\p{L}\p{N}\p{M}]*)*/gu;
// Chinese and Japanese are written without spaces: each character is a word
const UNSPACED = new RegExp(
  "([\\u3005-\\u3007\\u3041-\\u3096\\u309d-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\u{20000}-\\u{3ffff}]" +
  "[\\u3099\\u309a\\ufe00-\\ufe0f\\u{e0100}-\\u{e01ef}]*)", "u");

/** The words of a caption; `former` as in Python: lower case only, and no splitting of Chinese and Japanese. */
export function wordsOf(caption, former = false) {
  let text = caption.replace(/[\u2019\u02bc]/g, "'").replace(/[\u2010\u2011]/g, "-").normalize("NFKC").toLowerCase();
  if (former) return text.match(WORD) ?? [];
  text = text.toUpperCase().toLowerCase().replaceAll("\u03c2", "\u03c3").normalize("NFKC"); // case folding
  return (text.match(WORD) ?? []).flatMap(word => word.split(UNSPACED).filter(part => part));
}

/** Add the signs of one feature to a vector. */
function add(vector, feature, weight) {
  const dim = vector.length, count = Math.min(POSITIONS, dim), numbers = digest(feature);
  for (let i = 0; i < count; i++) {
    const first = Math.floor(i * dim / count), size = Math.floor((i + 1) * dim / count) - first;
    vector[first + Math.floor(numbers[i] / 2) % size] += weight * (1 - 2 * (numbers[i] % 2));
  }
}

/** A word with its character trigrams, unscaled. */
function wordVector(word, dim) {
  const vector = new Float64Array(dim), bounded = [..."<" + word + ">"];
  add(vector, "w:" + word, 1);
  for (let i = 0; i + 2 < bounded.length; i++) add(vector, "c:" + bounded.slice(i, i + 3).join(""), TRIGRAM);
  return vector;
}

/** A vector divided by its root mean square; zeros stay zeros. */
function scaled(vector) {
  const square = vector.reduce((sum, x) => sum + x * x, 0) / vector.length || 1;
  return Float32Array.from(vector, x => x / Math.sqrt(square));
}

/**
 * Encode a caption: its words, the sentence embedding (dim), and word vectors (T x dim) of at most `maxWords` words.
 * Without a word, `words` is empty.
 */
export function encode(caption, {dim, maxWords = 32, former = false}) {
  const words = wordsOf(caption, former), sum = new Float64Array(dim), vectors = [];
  words.forEach((word, place) => {
    const vector = wordVector(word, dim), weight = FUNCTION_WORDS.has(word) ? FUNCTION : 1;
    vector.forEach((x, i) => { sum[i] += weight * x; });
    if (place < maxWords) vectors.push(scaled(vector));
  });
  const content = words.filter(word => !FUNCTION_WORDS.has(word));
  for (let i = 0; i + 1 < content.length; i++) add(sum, `b:${content[i]} ${content[i + 1]}`, BIGRAM);
  return {words, sentence: scaled(sum), vectors};
}
