// Judges values by the published schemas of @relaycast/types 5.0.7.
//
// Standard input: one JSON object per line, `{"as": <schema>, "value": <anything>}`.
// Standard output: one JSON string per line: empty when the value is accepted, else why it is not.
import readline from 'node:readline';
import * as types from '@relaycast/types';
import { z } from 'zod';

const list = (schema) => z.array(schema);

// The published enum is online|offline|away; engines write active|offline|idle|... and clients read any text.
const anyStatus = (schema) => schema.extend({ status: z.string() });

// Nodes have no published schema. Every key of the contract must be there, others may be.
const node = z.object({
  id: z.string(),
  name: z.string(),
  kind: z.enum(['ws', 'http_push', 'poll']),
  role: z.enum(['direct', 'broker']),
  delivery_adapter: z.string().nullable(),
  delivery: z.unknown(),
  capabilities: list(types.FleetCapabilitySchema),
  tags: list(z.string()),
  version: z.string(),
  status: z.enum(['online', 'offline']),
  live: z.boolean(),
  handlers_live: z.boolean(),
  load: z.number(),
  active_agents: z.number().int().nonnegative(),
  max_agents: z.number().int().nonnegative(),
  last_heartbeat_at: z.string().nullable(),
  created_at: z.string(),
});
const enrolledNode = node.extend({ token: z.string().startsWith('nt_live_') });
const binding = z.object({
  id: z.string(),
  agent_id: z.string(),
  agent_name: z.string(),
  node_id: z.string(),
  node_name: z.string(),
  node_kind: z.string(),
  node_role: z.string(),
  status: z.string(),
  session_ref: z.string().nullable(),
  priority: z.number().int(),
  created_at: z.string(),
  updated_at: z.string().nullable(),
});
const counts = z.strictObject({
  rebound_agents: z.number().int(),
  open_invocations: z.number().int(),
  completed_invocations: z.number().int(),
  rescheduled_invocations: z.number().int(),
});
// Nobody has counted reactions, replies and readers of a message that was just posted.
const posted = types.MessageWithMetaSchema.omit({ reply_count: true, reactions: true, read_by_count: true });
const reply = posted.omit({ attachments: true });
const invocation = z.object({
  invocation_id: z.string(),
  action_name: z.string(),
  caller_id: z.string().nullable(),
  caller_name: z.string().nullable(),
  input: z.record(z.string(), z.unknown()),
  output: z.unknown(),
  status: z.string(),
  error: z.string().nullable(),
  duration_ms: z.number().nullable(),
  dispatched_node_id: z.string().nullable(),
  dispatched_at: z.string().nullable(),
  created_at: z.string(),
  completed_at: z.string().nullable(),
});

const ok = types.ApiSuccessSchema;
const agent = anyStatus(types.AgentSchema);
const schemas = {
  // Frames by who sends them, and what is inside some of them.
  'frame/broker': types.FleetBrokerToRelaycastMessageSchema,
  'frame/engine': types.FleetRelaycastToBrokerMessageSchema,
  'data/node.register': node,
  'data/agent.register': types.AgentRegisterReplyDataSchema,
  'data/inventory.sync': counts,
  // Requests over HTTP.
  'request/workspace-create': types.CreateWorkspaceRequestSchema,
  'request/agent-create': types.CreateAgentRequestSchema,
  'request/agent-spawn': types.SpawnAgentRequestSchema,
  'request/agent-release': types.ReleaseAgentRequestSchema,
  'request/channel-create': types.CreateChannelRequestSchema,
  'request/message-post': types.PostMessageRequestSchema,
  'request/dm-send': types.SendDmRequestSchema,
  // Answers over HTTP.
  'answer/workspace-create': ok(types.CreateWorkspaceResponseSchema.required({ api_key: true })),
  'answer/workspace-get': ok(types.WorkspaceSchema),
  'answer/workspace-by-name': ok(types.WorkspaceLookupSchema),
  'answer/node-create': ok(enrolledNode),
  'answer/node-get': ok(node),
  'answer/node-list': ok(list(node).min(1)),
  'answer/node-bind': ok(binding),
  'answer/node-agents': ok(list(binding).min(1)),
  'answer/agent-create': ok(anyStatus(types.CreateAgentResponseSchema)),
  'answer/agent-get': ok(agent.required({ channels: true, created_at: true })),
  'answer/agent-list': ok(list(agent).min(1)),
  'answer/agent-rotate': ok(types.TokenRotateResponseSchema),
  'answer/agent-spawn': ok(types.SpawnAgentResponseSchema),
  'answer/agent-release': ok(types.ReleaseAgentResponseSchema),
  'answer/invocation-get': ok(invocation),
  'answer/channel-create': ok(types.ChannelSchema),
  'answer/channel-get': ok(types.ChannelSchema),
  'answer/channel-list': ok(list(types.ChannelSchema).min(1)),
  'answer/channel-join': ok(types.JoinChannelResponseSchema),
  'answer/channel-invite': ok(types.InviteChannelResponseSchema),
  'answer/channel-mute': ok(types.MuteChannelResponseSchema),
  'answer/channel-members': ok(list(types.ChannelMemberInfoSchema).min(1)),
  'answer/message-post': ok(posted),
  'answer/message-get': ok(types.MessageWithMetaSchema),
  'answer/message-list': ok(list(types.MessageWithMetaSchema).min(1)),
  'answer/reply-post': ok(reply.extend({ thread_id: z.string() })),
  'answer/reply-list': ok(z.object({ parent: types.MessageWithMetaSchema.partial(), replies: list(reply).min(1) })),
  'answer/reaction-add': ok(types.AddedReactionSchema),
  'answer/mark-read': ok(types.ReadReceiptSchema),
  'answer/dm-send': ok(types.SendDmResponseSchema),
  'answer/dm-conversations': ok(list(types.DmConversationSummarySchema).min(1)),
  'answer/dm-messages': ok(list(types.DmMessageSchema).min(1)),
  'answer/inbox': ok(types.InboxResponseSchema),
  'answer/deliveries': ok(list(types.DeliveryItemSchema).min(1)),
  'answer/error': types.ApiErrorSchema,
  // What the engine's agents are really called: outside the published enum, which is why `anyStatus` is.
  'answer/agent-create/published': ok(types.CreateAgentResponseSchema),
};

/** Where and why, of a union the variant that came closest. */
const explain = (issues, at = []) =>
  issues.flatMap((issue) => {
    const path = [...at, ...issue.path];
    const variants = issue.code === 'invalid_union' ? (issue.errors ?? []).filter((errors) => errors.length > 0) : [];
    if (variants.length > 0) {
      return explain(variants.reduce((best, errors) => (errors.length < best.length ? errors : best)), path);
    }
    return `${path.join('.') || '(whole)'}: ${issue.message}`;
  });

for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const { as, value } = JSON.parse(line);
  const schema = schemas[as];
  const verdict = schema?.safeParse(value);
  const why = !schema ? `there is no schema ${as}` : verdict.success ? '' : explain(verdict.error.issues).join('; ');
  process.stdout.write(`${JSON.stringify(why)}\n`);
}
