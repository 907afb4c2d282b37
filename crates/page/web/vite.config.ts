// How `npm run build` makes ../dist: names that stay the same, nothing inline, byte for byte again.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [svelte()],
  base: '/',
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    reportCompressedSize: false,
    rollupOptions: {
      output: {
        entryFileNames: 'page/page.js',
        chunkFileNames: 'page/[name].js',
        assetFileNames: 'page/page[extname]',
        inlineDynamicImports: true,
      },
    },
  },
});
