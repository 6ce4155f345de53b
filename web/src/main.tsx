import { render } from "preact";
import { App } from "./app";
import { begin } from "./state/session";
import "./style/base.css";
import "./style/parts.css";
import "./style/shell.css";

void begin();
render(<App />, document.getElementById("app") as HTMLElement);
