"""The words of the report, in English and in Chinese; names in braces are filled in by the page."""

# ruff: noqa: E501

ENGLISH = {
    "title": "One sentence on its way through a Transformer",
    "sentence": "sentence",
    "translation": "translation by the model",
    "reference": "reference",
    "facts": "{parameters} parameters · width {width} · {encoder} + {decoder} layers · {heads} heads "
    "· vocabularies {source} and {target} · positions: {positions}",
    "theme": "light / dark",
    "contents": "The steps",
    "characters": "Characters",
    "characters_text": "A computer stores text as numbers: each character has a code point in "
    "Unicode. These numbers are only names; they say nothing about meaning.",
    "pieces": "Pieces and their ids",
    "pieces_text": "The tokenizer cuts the text into pieces from a fixed list, the vocabulary, and "
    "writes each as its number in that list. “▁” marks a space, “</s>” the end of the sentence.",
    "one_hot": "One-hot vectors",
    "one_hot_text": "Ids must not be compared: piece 700 is not seven times piece 100. So each "
    "becomes a vector as long as the vocabulary, with a single 1 at its own entry and 0 everywhere else.",
    "one_hot_tip": "piece “{piece}”: 1 at entry {id}, 0 at the other {rest}",
    "embedding": "Embedding",
    "embedding_text": "The one-hot vector times the embedding matrix picks one row of that matrix: "
    "{width} learned numbers for each piece. Pieces used alike come to point the same way.",
    "embedding_axis": "the {width} numbers of each piece",
    "neighbours": "Nearest pieces",
    "neighbours_text": "Click a piece to see which others in the vocabulary point most nearly the "
    "same way, with the cosine of the angle between them.",
    "neighbours_of": "nearest to “{piece}”",
    "picture": "Both languages in one space",
    "picture_text": "The pieces (large) and some neighbours (small) on the plane along which they "
    "differ most: {share} % of all the difference shows here, the rest lies in other directions.",
    "picture_one": "Both languages share one table in this model, so near means alike across them "
    "too.",
    "picture_two": "In this model each language has a table of its own. They are drawn in the same "
    "space, but a Chinese and an English piece that lie close need not mean the same: what joins the "
    "two languages is the attention further below.",
    "near_tip": "cosine {cosine} with “{piece}”",
    "positions": "Positions",
    "positions_text": "Attention by itself does not know the order of words. This model adds a "
    "vector to each position in the sentence: one row of the picture a position.",
    "positions_two": "Encoder and decoder have each learned a table of their own.",
    "positions_none": "This model adds nothing to its input to tell positions apart.",
    "positions_dots": "How alike two positions are: the product of their vectors. It depends on their "
    "distance alone when all stripes run straight along the diagonal.",
    "positions_relative": "This model adds no vectors to its input. Instead, attention scores depend "
    "on the distance between two pieces (scheme: {scheme}).",
    "positions_by_distance": "What distance adds to the score in the first layer, on average over "
    "this sentence, one line a head. Negative distances lie to the left, in the past.",
    "positions_rotary": "Queries and keys are rotated, pair of channels by pair of channels, by an "
    "angle that grows with the position. Shown is the cosine of the angle for each distance: what the "
    "rotation leaves of that pair's share of the score.",
    "position": "position",
    "entry": "entry",
    "channel": "channel",
    "distance": "distance",
    "encoder": "Self-attention in the encoder",
    "encoder_text": "Each piece asks a question (its query, Q) and every piece holds up an answer "
    "(its key, K). Where they match, the score is high, and more of that piece's value (V) flows in. "
    "Each head asks questions of its own. Choose a layer and a head:",
    "two_matrices": "Why two matrices, Q and K",
    "two_matrices_text": "The scores are x Wq Wkᵀ xᵀ. With one matrix for both they would be "
    "symmetric: “dog” would matter to “black” exactly as “black” matters to “dog”, and each word "
    "would score with its own squared length. With two they need not be.",
    "with_two": "two matrices: x Wq Wkᵀ xᵀ",
    "with_two_turned": "what changes when asker and asked swap",
    "with_one": "one matrix: x Wq Wqᵀ xᵀ",
    "with_one_turned": "the same with one matrix: nothing",
    "asymmetry": "In this head {share} % of the scores' size (squared) is asymmetric; with one "
    "matrix it is 0 %.",
    "decoder": "Self-attention in the decoder",
    "decoder_text": "The decoder attends to what it has written so far. In training it is given the "
    "whole translation at once, so later pieces are hidden by a mask: hatched cells get no weight.",
    "cross": "Cross-attention and alignment",
    "cross_text": "At every step the decoder asks the encoder's output which source pieces matter "
    "now: its queries, the encoder's keys and values. A row is the step that writes the piece named "
    "there.",
    "alignment": "The alignment it implies",
    "alignment_text": "For each written piece, the source piece its step looks at most, in the mean "
    "of all heads of layer {layer}. Pieces that look at the end of the sentence are left unaligned.",
    "residual": "The residual stream",
    "residual_text": "Each sublayer adds its result to the vector that runs through the model. The "
    "lines show how long that vector is for each piece, from the embedding to the last layer.",
    "residual_encoder": "encoder",
    "residual_decoder": "decoder",
    "norm": "length of the vector",
    "input": "input",
    "self": "self",
    "cross_short": "cross",
    "ff": "feed-forward",
    "output": "The output, step by step",
    "output_text": "At each step the last vector is compared with every piece of the vocabulary; "
    "softmax makes probabilities of the scores. Bars show how sure the model was of the piece that "
    "was written. Choose a step:",
    "output_of": "step {step}: after “{before}”",
    "output_facts": "probability of “{piece}” {probability} · entropy {entropy} bits",
    "beam": "The beam, as a tree",
    "beam_text": "Search does not simply take the likeliest piece: it keeps the {size} best beginnings "
    "at each step and drops the others. The bold way is the translation; ends show the score that "
    "decides, the log-probability after the correction for length.",
    "beam_tip": "“{text}” · log-probability {log_prob}",
    "beam_score": "score {score}",
    "compare": "The reference",
    "compare_text": "How likely the model finds another translation, piece by piece. Log-probability "
    "{own} for its own translation, {other} for the reference; low bars are pieces that it did not "
    "expect.",
    "layer": "layer",
    "head": "head",
    "head_tip": "largest {what} {value}: {asks} → {asked}",
    "asks": "asks (query)",
    "asked": "is asked (key)",
    "products": "query times key",
    "products_additive": "score of query and key: w · tanh(q + k)",
    "products_linear": "φ(query) times φ(key)",
    "products_note": "variance {variance}",
    "scaled": "divided by √{width}",
    "scaled_note": "variance {variance}, {times} times smaller: a softer softmax",
    "with_positions": "what distance adds",
    "masked": "mask",
    "masked_none": "all may be seen",
    "masked_some": "hatched: hidden",
    "weights": "softmax",
    "weights_note": "each row sums to 1",
    "weights_linear": "the weights it implies",
    "no_weights": "linear attention has no softmax and never writes these down",
    "score": "score",
    "weight": "weight",
    "hidden": "hidden",
    "cosine": "cosine",
    "probability": "probability",
    "footer": "Written by tfm. Everything on this page is inside this one file. Hover over anything to "
    "see its number.",
}

CHINESE = {
    "title": "一个句子在 Transformer 里的旅程",
    "sentence": "原句",
    "translation": "模型的译文",
    "reference": "参考译文",
    "facts": "{parameters} 个参数 · 宽度 {width} · 编码器 {encoder} 层，解码器 {decoder} 层 · {heads} "
    "个头 · 词表大小 {source} 和 {target} · 位置方案：{positions}",
    "theme": "浅色 / 深色",
    "contents": "目录",
    "characters": "字符",
    "characters_text": "计算机用数字来存文字：每个字符在 Unicode 里都有一个编号。这些编号只是名字，"
    "和意思没有关系。",
    "pieces": "切分与编号",
    "pieces_text": "分词器按一张固定的词表把句子切成小块，每一块用它在词表中的编号来表示。"
    "“▁”代表空格，“</s>”代表句子结束。",
    "one_hot": "独热向量（one-hot）",
    "one_hot_text": "编号不能拿来比大小：700 号并不是 100 号的七倍。所以每一块先变成一个和词表一样长的"
    "向量，只有自己的位置是 1，其余全是 0。",
    "one_hot_tip": "“{piece}”：第 {id} 位是 1，其余 {rest} 位都是 0",
    "embedding": "词嵌入",
    "embedding_text": "独热向量乘以嵌入矩阵，等于取出矩阵中的一行：每一块得到 {width} 个学出来的数。"
    "用法相近的词，向量的方向也相近。",
    "embedding_axis": "每一块的 {width} 个数",
    "neighbours": "最近的邻居",
    "neighbours_text": "点一个词块，看看词表里哪些词块的方向和它最接近；右边的数是夹角的余弦。",
    "neighbours_of": "离“{piece}”最近的词块",
    "picture": "两种语言画在同一个空间里",
    "picture_text": "句中的词块（大点）和它们的一些邻居（小点），投影到差别最大的平面上。"
    "这张图只保留了全部差别的 {share} %，其余的在别的方向上。",
    "picture_one": "这个模型的两种语言共用一张嵌入表，所以跨语言的远近也有意义。",
    "picture_two": "这个模型的两种语言各有一张嵌入表，这里只是画在同一个空间里：中文块和英文块靠得近，"
    "不等于意思相近。真正把两种语言连起来的，是下面的注意力。",
    "near_tip": "和“{piece}”的余弦 {cosine}",
    "positions": "位置",
    "positions_text": "注意力本身不知道词的先后顺序。这个模型给句子的每个位置加上一个向量："
    "图中一行就是一个位置。",
    "positions_two": "编码器和解码器各学了一张自己的位置表。",
    "positions_none": "这个模型没有在输入上加任何位置信息。",
    "positions_dots": "两个位置有多像：它们的向量的内积。如果条纹都沿着对角线方向，"
    "就说明它只和距离有关。",
    "positions_relative": "这个模型不在输入上加位置向量，而是让注意力的分数随两个词块的距离变化"
    "（方案：{scheme}）。",
    "positions_by_distance": "第一层里距离给分数加了多少（对这个句子取平均），每条线是一个头；负的距离在左边，"
    "也就是前文。",
    "positions_rotary": "查询和键的通道两两一组，按位置旋转一个角度，越靠后转得越多。"
    "图中是每个距离对应角度的余弦：旋转之后，这一组对分数的贡献还剩多少。",
    "position": "位置",
    "entry": "第几位",
    "channel": "通道",
    "distance": "距离",
    "encoder": "编码器的自注意力",
    "encoder_text": "每个词块提出一个问题（查询 Q），每个词块也都亮出自己的标签（键 K）。两者越合拍，"
    "分数越高，那个词块的内容（值 V）就流进来越多。每个头问的问题都不一样。请选择层和头：",
    "two_matrices": "为什么要 Q、K 两个矩阵",
    "two_matrices_text": "分数就是 x Wq Wkᵀ xᵀ。如果只用一个矩阵，它必然对称：“狗”对“黑”有多重要，"
    "“黑”对“狗”就有多重要，而且每个词给自己的分数总是自身长度的平方。用两个矩阵就没有这个限制。",
    "with_two": "两个矩阵：x Wq Wkᵀ xᵀ",
    "with_two_turned": "提问者和被问者互换，差多少",
    "with_one": "一个矩阵：x Wq Wqᵀ xᵀ",
    "with_one_turned": "一个矩阵时互换：没有差别",
    "asymmetry": "在这个头里，分数（平方和）的 {share} % 是不对称的；只用一个矩阵时是 0 %。",
    "decoder": "解码器的自注意力",
    "decoder_text": "解码器只看自己已经写出的部分。训练时整句译文是一次给出的，所以要用掩码把后文遮住："
    "画斜线的格子得不到任何权重。",
    "cross": "交叉注意力与对齐",
    "cross_text": "解码器每写一步，都要去问编码器：现在该看原句的哪几块？查询来自解码器，"
    "键和值来自编码器。每一行是写出左边那一块时的注意力。",
    "alignment": "由此得到的词对齐",
    "alignment_text": "每写出一块时看得最多的原句词块，取第 {layer} 层所有头的平均。"
    "如果看得最多的是句尾标记，就不对齐。",
    "residual": "残差流",
    "residual_text": "每个子层都把结果加到一条贯穿整个模型的向量上。图中的线是每个词块的向量长度，"
    "从词嵌入一直到最后一层。",
    "residual_encoder": "编码器",
    "residual_decoder": "解码器",
    "norm": "向量的长度",
    "input": "输入",
    "self": "自注意",
    "cross_short": "交叉",
    "ff": "前馈",
    "output": "一步一步地输出",
    "output_text": "每一步，最后的向量都和词表中的每一块比较，softmax 把分数变成概率。"
    "柱子的高度表示模型对写出的那一块有多大把握。请选择一步：",
    "output_of": "第 {step} 步：接在“{before}”后面",
    "output_facts": "“{piece}”的概率 {probability} · 熵 {entropy} 比特",
    "beam": "束搜索的树",
    "beam_text": "搜索并不是每步都取概率最大的一块，而是始终保留最好的 {size} 个开头，放弃其余的。"
    "粗线是最终的译文；末端的数字是决定胜负的得分，也就是按长度修正后的对数概率。",
    "beam_tip": "“{text}” · 对数概率 {log_prob}",
    "beam_score": "得分 {score}",
    "compare": "参考译文",
    "compare_text": "模型认为另一个译文有多大可能，逐块来看。模型自己的译文对数概率是 {own}，"
    "参考译文是 {other}；柱子低的，就是它没有料到的词块。",
    "layer": "层",
    "head": "头",
    "head_tip": "最大的{what} {value}：{asks} → {asked}",
    "asks": "提问（查询）",
    "asked": "被问（键）",
    "products": "查询乘以键",
    "products_additive": "查询和键的分数：w · tanh(q + k)",
    "products_linear": "φ(查询) 乘以 φ(键)",
    "products_note": "方差 {variance}",
    "scaled": "除以 √{width}",
    "scaled_note": "方差 {variance}，小了 {times} 倍：softmax 不会太尖",
    "with_positions": "距离加上的分数",
    "masked": "掩码",
    "masked_none": "全部可见",
    "masked_some": "斜线：看不见",
    "weights": "softmax",
    "weights_note": "每行之和为 1",
    "weights_linear": "隐含的权重",
    "no_weights": "线性注意力没有 softmax，也从不写出这些权重",
    "score": "分数",
    "weight": "权重",
    "hidden": "看不见",
    "cosine": "余弦",
    "probability": "概率",
    "footer": "由 tfm 生成。页面的全部内容都在这一个文件里。把鼠标移到任何地方，都能看到具体的数字。",
}

LABELS = {"en": ENGLISH, "zh": CHINESE}
