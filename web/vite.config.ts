import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

// The server's policy allows its own files only: nothing is inlined, and nothing is loaded from elsewhere.
export default defineConfig({
  plugins: [preact({ devToolsEnabled: false, prefreshEnabled: false })],
  build: {
    outDir: "dist",
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { proxy: { "/admin": "http://127.0.0.1:8090", "/openapi.json": "http://127.0.0.1:8090" } },
});
