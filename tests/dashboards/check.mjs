// Type-checks every dashboard as a literal: what Grafana's types do not know is an error.
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const dashboards = process.argv[2] ?? join(here, '../../dashboards');
const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc');

const names = readdirSync(dashboards).filter((name) => name.endsWith('.json'));
const written = names.map((name) => {
  const path = join(here, `${name}.ts`);
  const text = readFileSync(join(dashboards, name), 'utf8');
  JSON.parse(text);
  writeFileSync(path, `import type { OurDashboard } from './schema';\nexport const dashboard: OurDashboard = ${text};\n`);
  return path;
});
const options = '--noEmit --strict --skipLibCheck --target es2022 --module esnext --moduleResolution bundler';
const done = spawnSync(process.execPath, [tsc, ...options.split(' '), ...written], { stdio: 'inherit' });
written.forEach((path) => rmSync(path));
if (done.status === 0) console.log(`${names.length} dashboards are as Grafana's types say`);
process.exit(done.status ?? 2);
