// Which process it is that has answered: each has its own settings and its own experience.

import type { Schemas } from "../api/client";

export function Answering({ of }: { of: Schemas["Answering"] }) {
  return (
    <p class="quiet">
      Answered by process {of.pid} on {of.host}
      {of.workers > 1 && `, one of ${of.workers} workers: another one may answer next time`}.
    </p>
  );
}
