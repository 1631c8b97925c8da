/** `esbuild.mjs` turns such an import into the module's bytes. */
declare module '*.wasm?bytes' {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}
