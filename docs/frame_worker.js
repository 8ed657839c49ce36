// Browsers refuse workers to pages that were opened from disk: there the search runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.waiting = [];
      this.inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.onmessage?.(event);
        this.dispatchEvent(event);
      };
      const script = frame.contentDocument.createElement("script");
      script.src = new URL(url, location.href);
      script.onload = () => this.waiting.splice(0).forEach((data) => this.postMessage(data));
      frame.contentDocument.head.append(script);
    }

    postMessage(data) {
      if (this.inside.onmessage) setTimeout(() => this.inside.onmessage({ data }));
      else this.waiting.push(data);
    }
  };
}
