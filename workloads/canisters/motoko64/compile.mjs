// Compiles one Motoko actor: node compile.mjs MOTOKO_PACKAGE_DIR SOURCE.mo OUTPUT_STEM
// The npm package carries the compiler and its library; nothing else is needed.
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';

const [packageDir, source, stem] = process.argv.slice(2);
const mo = createRequire(join(packageDir, 'package.json'))(packageDir).default;
for (const library of ['core', 'base']) {
  const file = join(packageDir, 'packages', 'latest', `${library}.json`);
  if (existsSync(file)) mo.loadPackage(JSON.parse(readFileSync(file, 'utf8')));
}
mo.setPublicMetadata(['candid:service']);
mo.write('Main.mo', readFileSync(source, 'utf8'));
const problems = mo.check('Main.mo').filter((diagnostic) => diagnostic.severity === 1);
if (problems.length > 0) {
  for (const { message, range } of problems) console.error(`${source}:${range.start.line + 1}: ${message}`);
  process.exit(1);
}
writeFileSync(`${stem}.wasm`, mo.wasm('Main.mo', 'ic').wasm);
writeFileSync(`${stem}.did`, mo.candid('Main.mo'));
