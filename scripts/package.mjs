// `npm run package`: builds and packages the extension into dist/*.vsix.
import { buildBundles, packageExtension } from './workbench.mjs';

await buildBundles(['--minify']);
console.log(await packageExtension());
