// A node of upstream's fleet, as its users write one: `agent-relay fleet serve pier.mjs`.
import { appendFileSync } from 'node:fs';
import { action, defineNode, spawn } from '@agent-relay/fleet';

const runs = (what) => appendFileSync('runs', `${what}\n`);

export default defineNode({
  name: 'pier',
  maxAgents: 5,
  tags: ['dry'],
  capabilities: {
    'pier.echo': action({ metadata: { about: 'answers what it is asked' } }, async (input, { invocationId }) => {
      runs(invocationId);
      return { said: input };
    }),
    'pier.storm': async () => {
      throw new Error('the boats are out');
    },
    'pier.ebb': async () => {
      runs('ebb');
      await new Promise(() => {});
    },
    'pier.greet': async ({ to }, { relay }) => relay.sendMessage({ to, text: 'greetings from the pier' }),
    'spawn:otter': spawn({ runtime: 'pty', command: 'cat' }),
  },
});
