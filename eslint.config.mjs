import js from '@eslint/js';
import ts from 'typescript-eslint';

/**
 * The arrows of docs/architecture.md. A room may import only the rooms named here, and only
 * through their front door (`index.ts`). `base` is the ground every room stands on.
 */
const ARROWS = {
  base: [],
  igvm: ['base'],
  x86: ['base'],
  snp: ['base', 'x86'],
  symbols: ['base'],
  measure: ['base', 'igvm', 'snp'],
  vmm: ['base', 'igvm', 'snp', 'x86'],
  listing: ['base', 'igvm', 'measure', 'snp', 'symbols', 'vmm'],
  debugger: ['base', 'igvm', 'measure', 'symbols', 'vmm', 'snp', 'x86'],
  extension: ['base', 'debugger', 'listing'],
  cli: ['base', 'debugger', 'listing', 'igvm', 'measure', 'symbols', 'vmm', 'snp', 'x86'],
};
const ROOMS = Object.keys(ARROWS);

const arrowRule = (room) => {
  const patterns = [];
  for (const other of ROOMS) {
    if (other === room) continue;
    // `../room/anything` and `../../room/anything`, from whatever depth inside this room.
    const inside = `^(\\.\\./)+${other}/`;
    if (!ARROWS[room].includes(other)) {
      patterns.push({
        regex: inside,
        message: `${room} -> ${other} is not an arrow of docs/architecture.md.`,
      });
    } else if (!(other === 'base')) {
      patterns.push({ regex: `${inside}(?!index\\.ts$)`, message: `Enter ${other}/ through its index.ts.` });
    }
  }
  if (room !== 'extension') patterns.push({ regex: '^vscode$', message: 'Only extension/ imports vscode.' });
  if (room !== 'debugger')
    patterns.push({ regex: '^@vscode/debug', message: 'Only debugger/ imports the DAP.' });
  if (room !== 'extension' && room !== 'cli')
    patterns.push(
      { regex: '^node:', message: 'node:* stays in extension/, cli/ and base/node.ts.' },
      { regex: '(^|/)base/node\\.ts$', message: 'base/node.ts is for extension/ and cli/ only.' },
    );
  return {
    files: [`src/${room}/**/*.ts`],
    ...(room === 'base' ? { ignores: ['src/base/node.ts'] } : {}),
    rules: { 'no-restricted-imports': ['error', { patterns }] },
  };
};

export default [
  {
    ignores: [
      'dist/**',
      'node_modules/**',
      '.cache/**',
      'samples/**/target/**',
      '**/*.rs',
      'test-artifacts/**',
    ],
  },
  js.configs.recommended,
  ...ts.configs.recommended,
  {
    rules: {
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      'no-restricted-properties': [
        'error',
        { object: 'Math', property: 'random', message: 'A run is a function: draw from the machine.' },
      ],
    },
  },
  {
    files: ['src/{base,igvm,measure,x86,snp,vmm,symbols}/**/*.ts'],
    ignores: ['src/base/node.ts'],
    rules: {
      'no-restricted-globals': [
        'error',
        { name: 'Date', message: 'Nothing reads the wall clock.' },
        { name: 'performance', message: 'Nothing reads the wall clock.' },
        { name: 'process', message: 'node globals stay in extension/, cli/ and base/node.ts.' },
        { name: 'Buffer', message: 'node globals stay in extension/, cli/ and base/node.ts.' },
      ],
    },
  },
  {
    files: ['**/*.mjs', 'scripts/**', 'test/**'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        Buffer: 'readonly',
        URL: 'readonly',
        setTimeout: 'readonly',
        fetch: 'readonly',
      },
    },
  },
  ...ROOMS.map(arrowRule),
];
