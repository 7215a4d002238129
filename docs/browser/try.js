// Finds nuclei in an image with the shipped network, in the browser. Nothing is loaded before the first image is chosen,
// and nothing leaves this page: the runtime and the network are files of this site.

const SIDE = 768; // larger images are reduced to this, since WebAssembly takes seconds per megapixel
const RULE = { threshold: 0.6, seed: 0.5, minSize: 30 }; // as in the weights
const COLORS = [
  [230, 60, 60], [60, 180, 75], [255, 200, 25], [70, 130, 255], [245, 130, 48], [170, 80, 230],
  [70, 220, 240], [240, 80, 220], [190, 240, 70], [250, 160, 180], [0, 160, 150], [200, 160, 255],
];

let session;

async function network(base) {
  if (!session) {
    const ort = await import(new URL("vendor/ort.wasm.min.mjs", base));
    ort.env.wasm.wasmPaths = new URL("vendor/", base).href;
    ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
    session = { ort, run: await ort.InferenceSession.create(new URL("vendor/nuclei.onnx", base).href) };
  }
  return session;
}

async function predict(base, pixels, width, height) {
  const { ort, run } = await network(base);
  const image = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < pixels.length; i += 4) {
    image[j++] = pixels[i];
    image[j++] = pixels[i + 1];
    image[j++] = pixels[i + 2];
  }
  const outputs = await run.run({ image: new ort.Tensor("uint8", image, [1, height, width, 3]) });
  return outputs.probabilities.data; // background, nucleus, border
}

// As unetzoo.instances.separate: seeds are connected pieces of sure nuclei, and the rest of the foreground belongs to
// the seed from which it is reached first.
export function separate(probabilities, width, height, rule = RULE) {
  const size = width * height;
  const numbers = new Int32Array(size);
  const inside = probabilities.subarray(size, 2 * size);
  const border = probabilities.subarray(2 * size, 3 * size);
  const neighbors = (i) => {
    const x = i % width;
    return [x > 0 ? i - 1 : -1, x < width - 1 ? i + 1 : -1, i - width, i + width].filter((n) => n >= 0 && n < size);
  };
  let count = 0;
  const front = [];
  for (let start = 0; start < size; start++) {
    if (numbers[start] || inside[start] <= rule.seed) continue;
    numbers[start] = ++count;
    for (const queue = [start]; queue.length; ) {
      const i = queue.pop();
      front.push(i);
      for (const n of neighbors(i)) {
        if (!numbers[n] && inside[n] > rule.seed) {
          numbers[n] = count;
          queue.push(n);
        }
      }
    }
  }
  for (let next = 0; next < front.length; next++) {
    for (const n of neighbors(front[next])) {
      if (!numbers[n] && inside[n] + border[n] > rule.threshold) {
        numbers[n] = numbers[front[next]];
        front.push(n);
      }
    }
  }
  const areas = new Int32Array(count + 1);
  for (const number of numbers) areas[number]++;
  const kept = new Int32Array(count + 1);
  let objects = 0;
  for (let number = 1; number <= count; number++) kept[number] = areas[number] >= rule.minSize ? ++objects : 0;
  return { numbers: numbers.map((number) => kept[number]), objects };
}

function outline(context, numbers, width, height) {
  const shown = context.getImageData(0, 0, width, height);
  for (let i = 0; i < numbers.length; i++) {
    const x = i % width;
    const number = numbers[i];
    const edge = number && (
      (x > 0 && numbers[i - 1] !== number) || (x < width - 1 && numbers[i + 1] !== number) ||
      (i >= width && numbers[i - width] !== number) || (i + width < numbers.length && numbers[i + width] !== number)
    );
    if (edge) shown.data.set([...COLORS[number % COLORS.length], 255], 4 * i);
  }
  context.putImageData(shown, 0, 0);
}

export async function show(root, source) {
  const status = root.querySelector("[role=status]");
  const canvas = root.querySelector("canvas");
  const base = new URL(root.dataset.base, document.baseURI);
  try {
    const image = await createImageBitmap(source);
    const scale = Math.min(1, SIDE / Math.max(image.width, image.height));
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.hidden = false;
    status.textContent = session ? "Computing …" : "Loading the network (about 22 MB) …";
    await new Promise((done) => setTimeout(done)); // lets the browser show it
    const { width, height } = canvas;
    const begun = performance.now();
    const pixels = context.getImageData(0, 0, width, height).data;
    const { numbers, objects } = separate(await predict(base, pixels, width, height), width, height);
    outline(context, numbers, width, height);
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    status.textContent = `${objects} ${objects === 1 ? "nucleus" : "nuclei"} in ${width}×${height} pixels, ${seconds} s`;
    return objects;
  } catch (error) {
    const missing = String(error).includes("vendor") || String(error).includes("dynamically imported");
    status.textContent = missing
      ? "This copy of the site was built without the network: run `make browser`, then build it again."
      : `This image cannot be shown: ${error.message}`;
    throw error;
  }
}

for (const root of document.querySelectorAll(".try")) {
  const input = root.querySelector("input");
  input.addEventListener("change", () => input.files.length && show(root, input.files[0]).catch(console.error));
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) show(root, file).catch(console.error);
  });
}
