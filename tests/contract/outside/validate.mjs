// What AsyncAPI's parser and Ajv say of a contract pack: node validate.mjs <directory of the pack>. Prints one JSON object.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Parser } from '@asyncapi/parser';
import Ajv2020 from 'ajv/dist/2020.js';

const pack = process.argv[2];
const text = (...path) => readFileSync(join(pack, ...path), 'utf-8');

const { document, diagnostics } = await new Parser().parse(text('asyncapi.json'));
const complaints = diagnostics.map(({ code, path, message }) => ({ code, path: path.join('.'), message }));
const operations = document?.operations().all().map((each) => ({
  id: each.id(),
  topics: each.channels().all().map((channel) => channel.address()),
  messages: each.messages().all().map((message) => message.id()),
  reply: each.reply()?.address()?.location() ?? null,
}));

// Formats are annotations, and x-comma-separated is our own.
const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
const checks = Object.fromEntries(
  readdirSync(pack)
    .filter((name) => name.endsWith('.schema.json'))
    .map((name) => [name.replace('.schema.json', ''), ajv.compile(JSON.parse(text(name)))]),
);
const samples = readdirSync(join(pack, 'samples')).map((name) => {
  const sample = JSON.parse(text('samples', name));
  const valid = {};
  for (const [part, schema] of [['command', 'command'], ['result', 'result'], ['transition', 'transition'], ['dead_letter', 'dead-letter']]) {
    const record = sample[part];
    if (record === undefined) continue;
    valid[`${part} headers`] = checks[`${schema}-headers`](record.headers);
    const structured = (record.headers['content-type'] ?? '').startsWith('application/cloudevents+json');
    const form = structured ? `${schema}-structured` : schema;
    if ('value' in record && form in checks) valid[part] = checks[form](record.value);
  }
  return { name: sample.name, valid };
});

console.log(JSON.stringify({ complaints, operations: operations ?? null, samples }));
