/** Gives `symbols/` its demangler: a WebAssembly module that the bundler puts into the bundle as bytes. */
import { canDemangle, initSymbols } from '../symbols/index.ts';

/** Does nothing the second time. Without the module (run from source) names stay mangled and images say so. */
export async function loadDemangler(): Promise<void> {
  if (canDemangle()) return;
  try {
    const { default: bytes } = await import('gecko-profiler-demangle/index_bg.wasm?bytes');
    await initSymbols(bytes);
  } catch {
    // Readable names are a comfort, not a need.
  }
}
