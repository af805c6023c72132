// What web/js/ uses of ComfyUI's page, from the types that the frontend publishes. Loose where those do not reach:
// the kinds of nodes, the events of packs, and what litegraph puts into the page's global scope.

declare module "*/scripts/app.js" {
  import type { ComfyApp } from "@comfyorg/comfyui-frontend-types";
  type Graph = Omit<ComfyApp["rootGraph"], "getNodeById"> & { getNodeById(id: unknown): any };
  export const app: Omit<ComfyApp, "graph" | "rootGraph"> & { graph: Graph; rootGraph: Graph };
}

declare module "*/scripts/api.js" {
  import type { ComfyApi } from "@comfyorg/comfyui-frontend-types";
  type Listener = (event: CustomEvent) => void;
  export const api: Omit<ComfyApi, "addEventListener"> & { addEventListener(event: string, listener: Listener): void };
}

declare const LiteGraph: any;
declare const LGraphBadge: any;
