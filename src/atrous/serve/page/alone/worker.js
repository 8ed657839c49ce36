// ONNX Runtime Web with one model: first { kind, model }, then images { pixels, width, height } to { labels, took }.
const FILES = { wasm: "ort.wasm.min.mjs", webgpu: "ort.webgpu.min.mjs" };
let ort, session;

async function open({ kind, model }) {
  const folder = new URL("../ort/", import.meta.url).href;
  ort = await import(`${folder}${FILES[kind]}`);
  ort.env.wasm.wasmPaths = folder;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
  session = await ort.InferenceSession.create(model, { executionProviders: [kind], graphOptimizationLevel: "all" });
  return { threads: ort.env.wasm.numThreads };
}

async function run({ pixels, width, height }) {
  const begin = performance.now(), image = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
  const { labels } = await session.run({ image });
  return { labels: new Uint8Array(await labels.getData()), took: performance.now() - begin };
}

onmessage = async ({ data }) => {
  try {
    postMessage(await (data.kind ? open(data) : run(data)));
  } catch (error) {
    postMessage({ error: `${error.message ?? error}`.split("\n")[0] });
  }
};
