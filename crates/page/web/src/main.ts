// Starts the page.
import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import { edits } from './lib/edits.svelte';
import { live } from './lib/live.svelte';

live.start();
void edits.read();
mount(App, { target: document.getElementById('app')! });
