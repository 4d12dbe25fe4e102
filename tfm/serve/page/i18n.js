// The words of the page in English and Chinese, and the names of languages.

const WORDS = {
  en: {
    skip: "Skip to the text", subtitle: "translate", from: "From", to: "To", swap: "Swap languages",
    source: "Text", target: "Translation", placeholder: "Type or paste text", clear: "Clear",
    confidence: "Confidence", copy: "Copy", copied: "Copied", alternatives: "Other translations",
    legend: "How sure the model was of each piece:", unsure: "unsure", sure: "sure",
    steps: "See every step", report: "How this translation came about", close: "Close",
    stepsHint: "From the first token to the last: embeddings, attention of every head, the search.",
    stepsBusy: "Computing every step…", stop: "Stop",
    files: "Translate a file", drop: "Drop a file here, or choose one",
    filesHint: ".txt, .srt, .docx, or .tsv, of which the first column is translated. The file is "
      + "read here; only its text goes to this server.",
    history: "History", historyHint: "Kept in this browser only.", forget: "Forget all",
    nothing: "Nothing yet.",
    footer: "Runs on this server alone: nothing is sent to anyone else, and texts are not logged.",
    auto: "Detect language", detected: "detected", characters: "characters",
    translating: "Translating…", done: "Translated", light: "Light", dark: "Dark",
    themeLabel: "Colours: {0}. Switch to {1}.", probability: "probability {0}",
    busy: "The server is busy; trying again in {0} s.", offline: "The server does not answer.",
    failed: "Not translated: {0}", lines: "{0} of {1} lines", saved: "Done: {0} is in your downloads.",
    stopped: "Stopped.", unreadable: "{0} cannot be read: {1}", kind: "the kind of file is not known",
    noModel: "No model of this server translates that pair.",
  },
  zh: {
    skip: "跳到正文", subtitle: "翻译", from: "源语言", to: "目标语言", swap: "交换语言",
    source: "原文", target: "译文", placeholder: "输入或粘贴文字", clear: "清空",
    confidence: "把握程度", copy: "复制", copied: "已复制", alternatives: "其他译法",
    legend: "模型对每个词片的把握：", unsure: "不确定", sure: "确定",
    steps: "查看每一步", report: "这句译文是怎样得来的", close: "关闭",
    stepsHint: "从第一个词元到最后一个：词嵌入、每个头的注意力、搜索过程。",
    stepsBusy: "正在计算每一步……", stop: "停止",
    files: "翻译文件", drop: "把文件拖到这里，或点击选择",
    filesHint: "支持 .txt、.srt、.docx，以及 .tsv（翻译第一列）。文件在浏览器中读取，只有文字会发送到本服务器。",
    history: "历史记录", historyHint: "只保存在这个浏览器里。", forget: "全部清除",
    nothing: "还没有记录。",
    footer: "只在这台服务器上运行：不向任何第三方发送内容，也不记录文字。",
    auto: "自动检测", detected: "检测到", characters: "个字符",
    translating: "正在翻译……", done: "已翻译", light: "浅色", dark: "深色",
    themeLabel: "当前为{0}，切换到{1}。", probability: "概率 {0}",
    busy: "服务器繁忙，{0} 秒后重试。", offline: "服务器没有响应。",
    failed: "未能翻译：{0}", lines: "{0} / {1} 行", saved: "完成：{0} 已保存到下载文件夹。",
    stopped: "已停止。", unreadable: "无法读取 {0}：{1}", kind: "不认识的文件类型",
    noModel: "服务器上没有这两种语言的模型。",
  },
};

let language = localStorage.getItem("interface")
  || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

/** The words for `key` in the language of the page; {0}, {1} are filled with `values`. */
export function words(key, ...values) {
  return WORDS[language][key].replace(/\{(\d)\}/g, (_, i) => values[i]);
}

/** The name of a language in the language of the page: "zh" is "Chinese" or "中文". */
export function languageName(code) {
  try {
    const names = new Intl.DisplayNames([language === "zh" ? "zh-Hans" : "en"], {type: "language"});
    return names.of(code.replace("_", "-")) || code;
  } catch {
    return code;
  }
}

/** Writes the words of the page into every element that asks for some. */
export function writeWords() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const e of document.querySelectorAll("[data-text]")) e.textContent = words(e.dataset.text);
  for (const e of document.querySelectorAll("[data-label]")) {
    e.setAttribute("aria-label", words(e.dataset.label));
    e.title = words(e.dataset.label);
  }
  for (const e of document.querySelectorAll("[data-title]")) e.title = words(e.dataset.title);
  for (const e of document.querySelectorAll("[data-placeholder]")) {
    e.placeholder = words(e.dataset.placeholder);
  }
  const other = document.getElementById("interface");
  other.textContent = language === "zh" ? "English" : "中文";
  other.lang = language === "zh" ? "en" : "zh-Hans";
  other.setAttribute("aria-label", language === "zh" ? "English interface" : "中文界面");
}

/** English instead of Chinese, or the other way. */
export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("interface", language);
  writeWords();
}

export const interfaceLanguage = () => language;
