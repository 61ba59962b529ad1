import type { StreamEvent } from "./Codec.ts"
import { parseObject } from "./JsonAt.ts"

/** A part of an answer as it grows: a run of text, or a tool call, whose `text` is its arguments. */
export interface Block {
  readonly kind: "Text" | "Refusal" | "Tool" | "Other"
  readonly index: number
  readonly id: string
  readonly name: string
  text: string
}

export type BlockEvent =
  | { readonly _tag: "Open"; readonly block: Block }
  | { readonly _tag: "Delta"; readonly block: Block; readonly text: string }
  | { readonly _tag: "Close"; readonly block: Block }

/**
 * Puts a stream into blocks, one open at a time, with rising indexes, as Anthropic's and OpenAI's Responses dialect have
 * it. Chat completions may write several tool calls at once: those that come while another is unfinished wait for it.
 */
export interface Blocks {
  readonly push: (event: StreamEvent) => ReadonlyArray<BlockEvent>
  readonly close: () => ReadonlyArray<BlockEvent>
  /** Takes over behind blocks that others wrote: `open`, if one is, and the next index. */
  readonly adopt: (open: Block | undefined, nextIndex: number) => void
  readonly hasTools: () => boolean
}

export const makeBlocks = (): Blocks => {
  let open: Block | undefined
  let nextIndex = 0
  let tools = false
  /** Tool calls by the event's index: the latest of that index, since a provider that goes on counts anew. */
  const calls = new Map<number, { block: Block; waiting: boolean }>()
  const queue: Array<{ block: Block; waiting: boolean }> = []

  const closeOpen = (out: Array<BlockEvent>) => {
    if (open === undefined) return
    // No client can parse an empty text as arguments.
    if (open.kind === "Tool" && open.text === "") {
      open.text = "{}"
      out.push({ _tag: "Delta", block: open, text: "{}" })
    }
    out.push({ _tag: "Close", block: open })
    open = undefined
  }

  const start = (block: Omit<Block, "index">, out: Array<BlockEvent>): Block => {
    closeOpen(out)
    const opened = { ...block, index: nextIndex++ }
    open = opened
    out.push({ _tag: "Open", block: opened })
    return opened
  }

  const release = (entry: { block: Block; waiting: boolean }, out: Array<BlockEvent>) => {
    const text = entry.block.text
    entry.block = start({ ...entry.block, text: "" }, out)
    entry.waiting = false
    if (text !== "") append(entry.block, text, out)
  }

  const append = (block: Block, text: string, out: Array<BlockEvent>) => {
    block.text += text
    out.push({ _tag: "Delta", block, text })
  }

  /** Whether the next call may begin: none is open, or the one that is has all its arguments. */
  const isFree = () => open?.kind !== "Tool" || parseObject(open.text) !== undefined

  const takeWaiting = (all: boolean) => (all || isFree() ? queue.shift() : undefined)

  const drain = (out: Array<BlockEvent>, all: boolean) => {
    for (let next = takeWaiting(all); next !== undefined; next = takeWaiting(all)) release(next, out)
  }

  const flow = (kind: "Text" | "Refusal", text: string, out: Array<BlockEvent>) => {
    if (text === "") return
    drain(out, true)
    append(open?.kind === kind ? open : start({ kind, id: "", name: "", text: "" }, out), text, out)
  }

  return {
    hasTools: () => tools,
    adopt: (block, index) => {
      open = block
      nextIndex = index
      if (block?.kind === "Tool") tools = true
    },
    close: () => {
      const out: Array<BlockEvent> = []
      drain(out, true)
      closeOpen(out)
      return out
    },
    push: (event) => {
      const out: Array<BlockEvent> = []
      switch (event._tag) {
        case "Text":
        case "Refusal":
          flow(event._tag, event.text, out)
          break
        case "ToolCall": {
          tools = true
          const entry = {
            block: { kind: "Tool" as const, index: -1, id: event.id, name: event.name, text: "" },
            waiting: true
          }
          calls.set(event.index, entry)
          queue.push(entry)
          drain(out, false)
          break
        }
        case "ToolArguments": {
          const entry = calls.get(event.index)
          if (entry === undefined || event.json === "") break
          if (entry.waiting) entry.block.text += event.json
          else if (entry.block === open) append(entry.block, event.json, out)
          if (queue.length > 0) drain(out, false)
          break
        }
        default:
          break
      }
      return out
    }
  }
}
