// Read by svelte-check and by Vite alike.
export default { compilerOptions: { runes: true } };
