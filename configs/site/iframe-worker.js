// Browsers start no worker from a file. Search then runs in a hidden frame of the page, which takes a worker's messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #loaded;

    constructor(url) {
      super();
      const address = new URL(url, location.href).href;
      const inside = `
        var postMessage = (data) => parent.dispatchEvent(new MessageEvent("from-frame", { data }));
        var importScripts = (...urls) => urls.reduce(
          (before, src) => before.then(() => new Promise((loaded, failed) => {
            const script = Object.assign(document.createElement("script"), { src, onload: loaded, onerror: failed });
            document.body.append(script);
          })),
          Promise.resolve(),
        );`;
      this.#frame.hidden = true;
      this.#frame.srcdoc = `<body><script>${inside}</script><script src="${address}"></script></body>`;
      this.#loaded = new Promise((loaded) => this.#frame.addEventListener("load", loaded, { once: true }));
      document.body.append(this.#frame);
      addEventListener("from-frame", ({ data }) => {
        const message = new MessageEvent("message", { data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      });
    }

    postMessage(data) {
      this.#loaded.then(() => this.#frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.#frame.remove();
    }
  };
}
