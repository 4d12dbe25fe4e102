"""The words of the phrasebook: the tables that the slots of the sentence frames are filled from.

A ``Word`` holds its forms in both languages; a frame selects a form by name. The default form has
the empty name. Tables are tuples of words, collected in ``TABLES``; numerals are in ``NUMERALS``.
The words of a table make sense in the same frames: one eats food, swims in a pool, and wears a
coat. The frames are in ``frames.py``.

Forms that several tables share:
  nouns    ``noun``, ``one`` 一本书 / *a book*, ``this``, ``that``, ``these``, ``those``; Chinese:
           ``m``, the measure word; English: ``plural``.
  verbs    English: the base form, ``s``, ``past``, ``ing``, ``done``.
  people   ``his`` 他的 / *his*; English: ``him``, ``mine``, ``be``, ``was``, ``have``, ``do``, and
           ``agree``, the name of the present-tense form of a verb that follows.
"""

from typing import NamedTuple

from tfm.data.phrasebook.numerals import en_number, en_ordinal, zh_number


class Word(NamedTuple):
    """The forms of one word in each language: name of the form → text."""

    zh: dict[str, str]
    en: dict[str, str]


Table = tuple[Word, ...]


def _rows(text: str) -> list[list[str]]:
    """Parses entries separated by ``;`` or line ends into fields separated by spaces.

    ``_`` is a space inside a field.
    """
    entries = text.replace("\n", ";").split(";")
    return [[f.replace("_", " ") for f in entry.split()] for entry in entries if entry.strip()]


# --- English inflection ---------------------------------------------------------------------------

_PLURALS = dict(
    _rows("""
    fish fish; sheep sheep; mouse mice; goose geese; knife knives; scarf scarves; wolf wolves
    bookshelf bookshelves; potato potatoes; tomato tomatoes; person people; child children""")
)
_PAST = {  # base form: past, past participle
    base: (past, done)
    for base, past, done in _rows("""
    break broke broken; buy bought bought; do did done; draw drew drawn; drink drank drunk
    drive drove driven; eat ate eaten; find found found; fly flew flown; get got gotten
    go went gone; have had had; hide hid hidden; know knew known; lose lost lost
    make made made; meet met met; read read read; ride rode ridden; run ran run; see saw seen
    sell sold sold; sing sang sung; sleep slept slept; speak spoke spoken; swim swam swum
    take took taken; teach taught taught; throw threw thrown; withdraw withdrew withdrawn
    write wrote written; fight fought fought""")
}
_DOUBLING = {"chat", "run", "swim", "big", "fat", "hot", "thin", "sad"}


def plural(noun: str) -> str:
    """Returns the plural of an English noun; *cup of tea* becomes *cups of tea*."""
    head, of, rest = noun.partition(" of ")
    before, space, last = head.rpartition(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return before + space + last + of + rest


def article(noun: str) -> str:
    """Returns the noun with *a* or *an*, by its first letter, which is right for all nouns here."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def conjugate(phrase: str) -> dict[str, str]:
    """Returns the forms of an English verb phrase, whose first word is the verb: *took a walk*."""
    verb, space, rest = phrase.partition(" ")
    stem = verb + verb[-1] if verb in _DOUBLING else verb.removesuffix("e")
    soft_y = verb.endswith("y") and verb[-2] not in "aeiou"
    if verb.endswith(("s", "x", "ch", "sh", "o")):
        third = verb + "es"
    else:
        third = verb[:-1] + "ies" if soft_y else verb + "s"
    past = verb[:-1] + "ied" if soft_y else stem + "ed"
    past, done = _PAST.get(verb, (past, past))
    third = "has" if verb == "have" else third
    ing = verb + "ing" if verb.endswith("ee") else stem + "ing"
    forms = {"": verb, "s": third, "past": past, "ing": ing, "done": done}
    return {name: form + space + rest for name, form in forms.items()}


# --- Parsers of the tables below ------------------------------------------------------------------


def _plain(text: str) -> Table:
    """Parses rows of Chinese, English."""
    return tuple(Word({"": zh}, {"": en}) for zh, en in _rows(text))


def _deed(zh: str, en: str) -> Word:
    return Word({"": zh}, conjugate(en))


def _deeds(text: str) -> Table:
    """Parses rows of Chinese, English verb phrase."""
    return tuple(_deed(zh, en) for zh, en in _rows(text))


def _noun(measure: str, zh: str, en: str) -> Word:
    many = plural(en)
    return Word(
        {
            "": zh,
            "noun": zh,
            "m": measure,
            "one": f"一{measure}{zh}",
            "this": f"这{measure}{zh}",
            "that": f"那{measure}{zh}",
            "these": f"这几{measure}{zh}",
            "those": f"那几{measure}{zh}",
        },
        {
            "": en,
            "noun": en,
            "plural": many,
            "one": article(en),
            "this": f"this {en}",
            "that": f"that {en}",
            "these": f"these {many}",
            "those": f"those {many}",
        },
    )


def _nouns(text: str) -> Table:
    """Parses rows of measure word, Chinese noun, English noun."""
    return tuple(_noun(*row) for row in _rows(text))


def _person(zh: str, en: str, him: str = "", his: str = "", mine: str = "", be: str = "is") -> Word:
    third = be == "is"
    forms = {
        "": en,
        "him": him or en,
        "his": his or f"{en}'s",
        "mine": mine or f"{en}'s",
        "be": be,
        "was": "were" if be == "are" else "was",
        "have": "has" if third else "have",
        "do": "does" if third else "do",
        "agree": "s" if third else "",
    }
    return Word({"": zh, "his": f"{zh}的"}, forms)


def _adjective(zh: str, en: str) -> Word:
    """Returns an adjective with its degrees; a leading ``*`` asks for *more* and *most*."""
    if en.startswith("*"):
        en = en[1:]
        more, most, rising = f"more {en}", f"most {en}", f"more and more {en}"
    else:
        stem = en[:-1] + "i" if en.endswith("y") else en.removesuffix("e")
        stem += en[-1] if en in _DOUBLING else ""
        more, most, rising = f"{stem}er", f"{stem}est", f"{stem}er and {stem}er"
    return Word({"": zh}, {"": en, "more": more, "most": most, "rising": rising})


def _adjectives(text: str) -> Table:
    """Parses rows of Chinese, English adjective."""
    return tuple(_adjective(*row) for row in _rows(text))


def join(first: Word, second: Word, zh: str = "", en: str = "") -> Word:
    """Merges the forms of two words; of a form that both have, the first word's is taken.

    Args:
      first: its default form becomes the default.
      second: its default form is stored under the names ``zh`` and ``en``, where given.
    """
    more_zh = {zh: second.zh[""]} if zh else {}
    more_en = {en: second.en[""]} if en else {}
    return Word({**second.zh, **more_zh, **first.zh}, {**second.en, **more_en, **first.en})


# --- Nouns ----------------------------------------------------------------------------------------

READING = _nouns("""
    本 书 book; 本 杂志 magazine; 本 小说 novel; 本 词典 dictionary; 本 漫画 comic_book
    份 报纸 newspaper; 张 地图 map; 本 课本 textbook; 本 菜谱 cookbook""")
WRITINGS = _nouns("封 信 letter; 份 报告 report; 张 明信片 postcard")
PAPERS = WRITINGS + _nouns("本 日记 diary; 张 照片 photo; 本 护照 passport")
FRUIT = _nouns("""
    个 苹果 apple; 个 橙子 orange; 个 梨 pear; 个 桃子 peach; 根 香蕉 banana; 个 西瓜 watermelon
    个 柠檬 lemon; 个 芒果 mango; 串 葡萄 bunch_of_grapes""")
DISHES = _nouns("""
    个 鸡蛋 egg; 片 面包 slice_of_bread; 块 蛋糕 piece_of_cake; 碗 米饭 bowl_of_rice
    碗 面条 bowl_of_noodles; 碗 沙拉 bowl_of_salad; 条 鱼 fish; 个 汉堡 hamburger
    个 包子 steamed_bun; 盘 饺子 plate_of_dumplings; 块 巧克力 piece_of_chocolate
    个 三明治 sandwich; 块 牛肉 piece_of_beef; 块 豆腐 piece_of_tofu; 根 黄瓜 cucumber
    个 土豆 potato; 个 西红柿 tomato; 块 饼干 cookie""")
DRINKS = _nouns("""
    杯 茶 cup_of_tea; 杯 咖啡 cup_of_coffee; 杯 牛奶 glass_of_milk; 杯 水 glass_of_water
    杯 果汁 glass_of_juice; 瓶 啤酒 bottle_of_beer; 瓶 可乐 bottle_of_cola
    瓶 红酒 bottle_of_red_wine; 碗 汤 bowl_of_soup""")
CLOTHES = _nouns("""
    件 衬衫 shirt; 件 毛衣 sweater; 件 大衣 coat; 条 裤子 pair_of_pants; 条 裙子 skirt
    条 围巾 scarf; 顶 帽子 hat; 双 鞋 pair_of_shoes; 双 袜子 pair_of_socks
    副 手套 pair_of_gloves; 件 夹克 jacket; 条 领带 tie""")
SWITCHED = _nouns("""
    台 电脑 computer; 台 电视 TV; 台 打印机 printer; 台 空调 air_conditioner; 盏 灯 lamp""")
MACHINES = SWITCHED + _nouns("""
    部 手机 phone; 台 冰箱 refrigerator; 台 洗衣机 washing_machine; 台 相机 camera""")
SEATS = _nouns("把 椅子 chair; 张 桌子 table; 张 床 bed; 张 沙发 sofa; 个 书架 bookshelf")
MIRROR = _nouns("面 镜子 mirror")
FURNITURE = SEATS + MIRROR + _nouns("张 地毯 rug; 架 钢琴 piano")
VEHICLES = _nouns("""
    辆 汽车 car; 辆 自行车 bicycle; 辆 摩托车 motorcycle; 辆 卡车 truck; 艘 船 boat""")
POCKET = _nouns("""
    把 雨伞 umbrella; 把 钥匙 key; 支 钢笔 pen; 支 铅笔 pencil; 块 手表 watch; 个 钱包 wallet
    个 书包 backpack; 副 眼镜 pair_of_glasses""")
HANDY = _nouns("""
    把 剪刀 pair_of_scissors; 把 刀 knife; 个 玩具 toy; 个 足球 soccer_ball; 个 闹钟 alarm_clock
    朵 花 flower; 把 吉他 guitar; 张 票 ticket""")
BOXES = _nouns("个 箱子 suitcase; 个 盒子 box")
TABLEWARE = _nouns("个 杯子 cup; 个 碗 bowl; 个 盘子 plate; 个 花瓶 vase; 个 瓶子 bottle")
OPENINGS = _nouns("扇 门 door; 扇 窗户 window")
ANIMALS = _nouns("""
    只 猫 cat; 只 狗 dog; 匹 马 horse; 头 牛 cow; 只 羊 sheep; 头 猪 pig; 只 鸡 chicken
    只 鸭子 duck; 只 鹅 goose; 只 鸟 bird; 只 兔子 rabbit; 只 老鼠 mouse; 条 蛇 snake
    头 大象 elephant; 只 猴子 monkey; 只 老虎 tiger; 只 熊猫 panda; 只 狼 wolf; 只 狐狸 fox""")
JOBS = _nouns("""
    位 医生 doctor; 位 老师 teacher; 位 警察 police_officer; 位 司机 driver; 位 厨师 cook
    位 护士 nurse; 位 记者 journalist; 位 工程师 engineer; 位 律师 lawyer; 位 科学家 scientist
    位 歌手 singer; 位 演员 actor; 位 作家 writer; 位 画家 painter; 位 农民 farmer
    位 经理 manager; 位 秘书 secretary; 位 飞行员 pilot; 位 翻译 translator
    位 程序员 programmer""")
CROWDS = _nouns("""
    个 学生 student; 个 孩子 child; 个 人 person; 个 游客 tourist; 个 外国人 foreigner
    个 男孩 boy; 个 女孩 girl""")
SMALL_THINGS = POCKET + HANDY + BOXES
GOODS = READING + FRUIT + CLOTHES + MACHINES + FURNITURE + VEHICLES + SMALL_THINGS + TABLEWARE
CARRIED = READING + PAPERS + POCKET + HANDY
SPOTS = _plain("""
    桌子上 on_the_table; 床上 on_the_bed; 椅子上 on_the_chair; 沙发上 on_the_sofa
    书架上 on_the_bookshelf; 地上 on_the_floor; 箱子里 in_the_suitcase; 袋子里 in_the_bag
    盒子里 in_the_box; 抽屉里 in_the_drawer; 汽车里 in_the_car; 门口 at_the_door
    窗户旁边 by_the_window; 床下面 under_the_bed; 桌子下面 under_the_table""")
LIKES = _plain("""
    茶 tea; 咖啡 coffee; 牛奶 milk; 啤酒 beer; 中国菜 Chinese_food; 辣的菜 spicy_food; 海鲜 seafood
    面条 noodles; 饺子 dumplings; 巧克力 chocolate; 水果 fruit; 蔬菜 vegetables; 音乐 music
    足球 soccer; 数学 math; 历史 history; 科学 science; 艺术 art; 京剧 Peking_opera; 电影 movies
    狗 dogs; 猫 cats; 花 flowers; 大城市 big_cities; 冬天 winter; 夏天 summer; 春天 spring
    秋天 autumn; 雨天 rainy_days; 老歌 old_songs""")
CUISINE = _plain("""
    北京烤鸭 Peking_duck; 火锅 hot_pot; 寿司 sushi; 比萨 pizza; 咖喱 curry; 臭豆腐 stinky_tofu
    月饼 mooncakes; 春卷 spring_rolls; 螃蟹 crab; 泡菜 kimchi; 羊肉 lamb; 炸鸡 fried_chicken""")
LANGUAGES = _plain("""
    中文 Chinese; 英语 English; 日语 Japanese; 法语 French; 德语 German; 西班牙语 Spanish
    俄语 Russian; 韩语 Korean; 意大利语 Italian; 阿拉伯语 Arabic""")
COLORS = _plain("""
    红 red; 白 white; 黑 black; 蓝 blue; 绿 green; 黄 yellow; 灰 gray; 紫 purple; 粉 pink
    棕 brown""")
KINDS = _plain("""
    颜色 color; 水果 fruit; 运动 sport; 动物 animal; 歌 song; 电影 movie; 季节 season
    书 book; 菜 dish; 花 flower""")

# --- People ---------------------------------------------------------------------------------------

_I = _person("我", "I", "me", "my", "mine", "am")
_YOU = _person("你", "you", "you", "your", "yours", "are")
_HE = _person("他", "he", "him", "his", "his")
_SHE = _person("她", "she", "her", "her", "hers")
_WE = _person("我们", "we", "us", "our", "ours", "are")
_THEY = _person("他们", "they", "them", "their", "theirs", "are")
_ELDERS = _rows("爷爷 grandfather; 奶奶 grandmother")
_CHILDREN = _rows("儿子 son; 女儿 daughter")
_ADULTS = _rows("""
    爸爸 father; 妈妈 mother; 哥哥 older_brother; 姐姐 older_sister; 叔叔 uncle; 阿姨 aunt""")
_PEERS = _rows("""
    同学 classmate; 邻居 neighbor; 朋友 friend; 同事 coworker; 老板 boss; 表弟 cousin""")
_KIN = _rows("弟弟 younger_brother; 妹妹 younger_sister") + _ELDERS + _CHILDREN + _ADULTS + _PEERS


def _kin(owner: Word, rows: list[list[str]]) -> Table:
    return tuple(_person(owner.zh[""] + zh, f"{owner.en['his']} {en}") for zh, en in rows)


NAMES = tuple(
    _person(*row) for row in _rows("小明 Xiaoming; 小红 Xiaohong; 小华 Xiaohua; 小丽 Xiaoli")
)
TITLED = tuple(
    _person(surname + title, f"{mr} {name}")
    for surname, name in _rows("王 Wang; 李 Li; 张 Zhang; 刘 Liu; 陈 Chen; 林 Lin; 周 Zhou")
    for title, mr in _rows("先生 Mr.; 女士 Ms.")
)
THAT_JOB = tuple(_person(job.zh["that"], job.en["that"]) for job in JOBS)
OTHERS = (*_kin(_I, _KIN), *_kin(_HE, _KIN), *_kin(_SHE, _KIN), *TITLED, *NAMES)
SINGLES = (_I, _HE, _SHE, *OTHERS)
ADULTS = (_I, _HE, _SHE, *_kin(_I, _ADULTS), *_kin(_HE, _ADULTS), *_kin(_SHE, _ADULTS), *TITLED)
WHO = (_WE, _THEY, *SINGLES, *THAT_JOB)
ASKED = (_YOU, _HE, _SHE, _THEY, *_kin(_YOU, _KIN), *TITLED, *NAMES)
ASKED_ONE = tuple(person for person in ASKED if person is not _THEY)


def _couples(people: Table) -> Table:
    """Returns every ordered pair of two people; the second is the form ``other``: 他 / *him*."""
    return tuple(
        Word({**a.zh, "other": b.zh[""]}, {**a.en, "other": b.en["him"]})
        for a in people
        for b in people
        if a is not b
    )


KNOWN = (_I, _HE, _SHE, *_kin(_I, _KIN), *TITLED, *NAMES)
COUPLES = _couples(KNOWN)
PEERS = _couples((_HE, _SHE, *_kin(_I, _PEERS), *TITLED, *NAMES))

# --- Adjectives -----------------------------------------------------------------------------------

_PRICED = _adjectives("贵 *expensive; 便宜 cheap")
_AGED = _adjectives("新 new; 旧 old")
_SIZED = _adjectives("大 big; 小 small")
_HEFT = _adjectives("重 heavy; 轻 light")
_PRETTY = _adjectives("漂亮 *beautiful; 结实 sturdy")
_NICE = _adjectives("舒服 *comfortable; 好看 pretty")
_SPEED = _adjectives("快 fast; 慢 slow; 安全 safe")
_LENGTH = _adjectives("长 long; 短 short; 厚 thick; 薄 thin")
_CLEAN = _adjectives("干净 clean; 脏 dirty")
_TASTE = _adjectives("甜 sweet; 新鲜 fresh; 好吃 *delicious")
_BOOKISH = _adjectives("有意思 *interesting; 有用 *useful; 难 *difficult; 无聊 *boring")
_BEASTLY = _adjectives("可爱 cute; 聪明 smart; 胖 fat; 瘦 thin")
TRAITS = _adjectives("""
    高 tall; 矮 short; 忙 busy; 聪明 smart; 强壮 strong; 有名 *famous; 有钱 rich
    勤奋 *hardworking; 友好 friendly; 健康 healthy; 勇敢 brave; 善良 kind; 幽默 funny
    耐心 *patient; 细心 *careful; 诚实 *honest; 瘦 thin; 懒 lazy; 害羞 shy""")
FEELINGS = _adjectives("""
    累 tired; 饿 hungry; 渴 thirsty; 高兴 happy; 难过 sad; 生气 angry; 紧张 *nervous; 忙 busy
    担心 *worried; 兴奋 *excited; 失望 *disappointed; 惊讶 *surprised""")
WEATHER = _adjectives("冷 cold; 热 hot; 暖和 warm; 凉快 cool; 潮湿 humid; 干燥 dry")


DEGREES = _plain("很 very; 非常 extremely; 不 not; 不太 not_very; 真的很 really")
MARGINS = (
    Word({"": ""}, {"": ""}),
    Word({"": "得多"}, {"": "much "}),
    Word({"": "一点儿"}, {"": "a little "}),
)
_VIRTUES = _adjectives("""
    聪明 smart; 勇敢 brave; 善良 kind; 诚实 *honest; 耐心 *patient; 细心 *careful; 勤奋 *hardworking
    友好 friendly; 幽默 funny; 健康 healthy""")
VIRTUES = tuple(join(a, b, "other", "other") for a in _VIRTUES for b in _VIRTUES if a is not b)


def _cross(left: Table, right: Table, name: str) -> Table:
    """Joins every left word with every right one, whose default form is stored under ``name``."""
    return tuple(join(a, b, name, name) for a in left for b in right)


LOOKS = (
    _cross(CLOTHES, _PRICED + _AGED + _NICE + _LENGTH[2:] + _CLEAN, "adj")
    + _cross(READING, _PRICED + _AGED + _LENGTH[2:] + _BOOKISH, "adj")
    + _cross(MACHINES, _PRICED + _AGED + _SIZED + _HEFT, "adj")
    + _cross(FURNITURE, _PRICED + _AGED + _SIZED + _HEFT + _PRETTY + _CLEAN, "adj")
    + _cross(VEHICLES, _PRICED + _AGED + _SIZED + _SPEED + _PRETTY, "adj")
    + _cross(FRUIT, _PRICED + _SIZED + _TASTE, "adj")
    + _cross(ANIMALS, _SIZED + _BEASTLY, "adj")
)
GOODS_LOOKS = LOOKS[: -len(ANIMALS) * len(_SIZED + _BEASTLY)]

# --- Verbs with their objects ---------------------------------------------------------------------


def _acts(*groups: tuple[str, str, Table]) -> Table:
    """Joins verbs with each of their objects; the default form is the verb, ``noun`` the object."""
    return tuple(join(_deed(zh, en), noun) for zh, en, t in groups for noun in t)


ACTS = _acts(  # deliberate acts
    ("买", "buy", GOODS),
    ("看", "read", READING),
    ("写", "write", WRITINGS),
    ("借", "borrow", READING + VEHICLES),
    ("卖", "sell", MACHINES + VEHICLES + FURNITURE),
    ("修", "repair", MACHINES + VEHICLES + SEATS),
    ("洗", "wash", CLOTHES + TABLEWARE),
)
SNACKS = _acts(("吃", "eat", FRUIT + DISHES), ("喝", "drink", DRINKS))
EVENTS = _acts(  # things that happen to people
    ("看见", "see", ANIMALS + VEHICLES),
    ("丢", "lose", POCKET + PAPERS),
    ("收到", "receive", PAPERS + HANDY),
    ("找到", "find", POCKET + PAPERS + READING),
)
CHANGES = _acts(  # changes of state, for 把 and 被 sentences
    ("打开", "open", OPENINGS + BOXES),
    ("关上", "close", OPENINGS + BOXES),
    ("关掉", "turn off", SWITCHED),
    ("洗干净", "wash", CLOTHES + TABLEWARE + VEHICLES + FRUIT),
    ("打碎", "break", TABLEWARE + MIRROR),
    ("弄坏", "damage", MACHINES + VEHICLES + SEATS),
    ("修好", "repair", MACHINES + VEHICLES + SEATS + OPENINGS),
    ("弄丢", "lose", POCKET + PAPERS),
    ("卖掉", "sell", MACHINES + VEHICLES + FURNITURE),
    ("扔掉", "throw away", CLOTHES + READING + WRITINGS),
    ("吃掉", "eat", FRUIT + DISHES),
    ("喝光", "finish", DRINKS),
    ("拿走", "take away", CARRIED),
    ("藏起来", "hide", POCKET + PAPERS),
    ("烧掉", "burn", PAPERS),
)
_DEEDS_AT = """
图书馆 library at: 看书 read_books; 学习 study; 做作业 do_homework; 查资料 look_up_information
公园 park in: 散步 take_a_walk; 跑步 run; 拍照 take_photos; 聊天 chat; 下棋 play_chess
公园 park in: 放风筝 fly_a_kite
厨房 kitchen in: 做饭 cook; 洗碗 wash_the_dishes; 喝水 drink_water
家 home _: 看电视 watch_TV; 睡觉 sleep; 休息 rest; 听音乐 listen_to_music; 洗衣服 do_the_laundry
家 home _: 打扫房间 clean_the_room; 上网 surf_the_internet; 玩游戏 play_games; 弹钢琴 play_the_piano
办公室 office in: 工作 work; 开会 have_a_meeting; 写报告 write_reports; 喝咖啡 drink_coffee
教室 classroom in: 上课 have_class; 做作业 do_homework; 看书 read_books; 考试 take_an_exam
教室 classroom in: 画画 paint
饭馆 restaurant at: 吃午饭 eat_lunch; 吃晚饭 eat_dinner; 喝啤酒 drink_beer; 见朋友 meet_friends
咖啡馆 coffee_shop at: 喝咖啡 drink_coffee; 聊天 chat; 看书 read_books; 写小说 write_novels
超市 supermarket at: 买菜 buy_groceries; 买水果 buy_fruit; 买牛奶 buy_milk
商场 mall at: 买衣服 buy_clothes; 买鞋 buy_shoes; 吃晚饭 eat_dinner
体育馆 gym at: 打篮球 play_basketball; 打羽毛球 play_badminton; 打乒乓球 play_table_tennis
体育馆 gym at: 锻炼身体 exercise
游泳池 swimming_pool at: 游泳 swim; 休息 rest
海边 beach at: 游泳 swim; 晒太阳 sunbathe; 散步 take_a_walk; 钓鱼 fish; 拍照 take_photos
宿舍 dorm in: 睡觉 sleep; 学习 study; 玩游戏 play_games; 听音乐 listen_to_music
花园 garden in: 种花 plant_flowers; 浇花 water_the_flowers; 喝茶 drink_tea
花园 garden in: 看报纸 read_the_newspaper
医院 hospital at: 看病 see_a_doctor; 工作 work
机场 airport at: 等飞机 wait_for_the_plane; 接客人 pick_up_guests
火车站 train_station at: 等火车 wait_for_the_train; 买票 buy_tickets
博物馆 museum at: 画画 paint; 拍照 take_photos
电影院 movie_theater at: 看电影 watch_movies; 买票 buy_tickets
酒店 hotel at: 休息 rest; 睡觉 sleep; 开会 have_a_meeting
书店 bookstore at: 买书 buy_books; 看书 read_books
银行 bank at: 取钱 withdraw_money; 换钱 exchange_money
邮局 post_office at: 寄信 mail_letters; 寄包裹 mail_packages
广场 square in: 跳舞 dance; 唱歌 sing; 聊天 chat
操场 playground on: 踢足球 play_soccer; 跑步 run; 放风筝 fly_a_kite"""


def _place(zh: str, en: str, preposition: str) -> Word:
    """Returns a place: ``at`` 在图书馆 / *at the library*, ``to`` 去图书馆 / *to the library*."""
    if en == "home":
        return Word({"": zh, "at": "在家", "to": "回家"}, {"": en, "at": "at home", "to": "home"})
    the = f"the {en}"
    return Word(
        {"": zh, "at": f"在{zh}", "to": f"去{zh}"},
        {"": the, "at": f"{preposition} {the}", "to": f"to {the}"},
    )


def _scene(place: Word, deed: Word) -> Word:
    """Returns a deed at a place: 在图书馆看书 / *read books at the library*.

    Its form ``now`` is 正在图书馆看书, where two 在 merge; its form ``to`` is 去图书馆看书 /
    *to the library to read books*.
    """
    at, to, do = place.zh["at"], place.zh["to"], deed.zh[""]
    en = {form: f"{text} {place.en['at']}" for form, text in deed.en.items()}
    en["to"] = f"{place.en['to']} to {deed.en['']}"
    return Word({"": at + do, "now": f"正{at}{do}", "to": to + do}, en)


def _places() -> tuple[Table, Table, Table]:
    """Parses ``_DEEDS_AT`` into the distinct places, deeds, and deeds at places."""
    places, deeds, scenes = {}, {}, []
    for line in _DEEDS_AT.strip().splitlines():
        head, _, body = line.partition(": ")
        place = _place(*_rows(head)[0])
        places[place.zh[""]] = place
        for deed in _deeds(body):
            deeds[deed.zh[""]] = deed
            scenes.append(_scene(place, deed))
    return tuple(places.values()), tuple(deeds.values()), tuple(scenes)


PLACES, DEEDS, SCENES = _places()
SKILLS = _deeds("""
    游泳 swim; 滑雪 ski; 滑冰 skate; 跳舞 dance; 唱歌 sing; 画画 paint; 做饭 cook; 开车 drive_a_car
    骑马 ride_a_horse; 骑自行车 ride_a_bicycle; 下棋 play_chess; 打篮球 play_basketball
    打网球 play_tennis; 打羽毛球 play_badminton; 打乒乓球 play_table_tennis; 踢足球 play_soccer
    弹钢琴 play_the_piano; 弹吉他 play_the_guitar; 拉小提琴 play_the_violin; 修电脑 repair_computers
    写诗 write_poems; 拍照 take_photos; 钓鱼 fish; 包饺子 make_dumplings""")
ROUTINE = _deeds("""
    起床 get_up; 睡觉 go_to_bed; 上班 go_to_work; 下班 get_off_work; 跑步 run; 散步 take_a_walk
    喝咖啡 drink_coffee; 看新闻 watch_the_news
    洗澡 take_a_shower; 开会 have_a_meeting; 遛狗 walk_the_dog; 写日记 write_in_a_diary""")
CHORES = _deeds("""
    做饭 cook; 洗碗 wash_the_dishes; 洗衣服 do_the_laundry; 打扫房间 clean_the_room
    擦窗户 wipe_the_windows; 浇花 water_the_flowers; 买菜 buy_groceries; 写报告 write_reports
    喝茶 drink_tea; 整理房间 tidy_the_room""")
PASTIMES = _deeds("""
    听音乐 listen_to_music; 唱歌 sing; 看电视 watch_TV; 聊天 chat; 打电话 talk_on_the_phone
    听新闻 listen_to_the_news""")
BANNED = _deeds("""
    抽烟 smoke; 大声说话 talk_loudly; 大声唱歌 sing_loudly; 拍照 take_photos; 录像 record_videos
    喝酒 drink_alcohol; 打架 fight; 乱扔垃圾 litter""")
OBJECTLESS = _deeds("""
    买 buy; 吃 eat; 喝 drink; 写 write; 画 draw; 卖 sell; 修 repair; 学 learn; 教 teach""")
SKY = _deeds("下雨 rain; 下雪 snow; 下大雨 rain_heavily; 下大雪 snow_heavily; 下冰雹 hail")
MODALS = tuple(
    Word({"": zh}, {"": en, "s": third})
    for zh, en, third in (
        ("想", "want to", "wants to"),
        ("必须", "must", "must"),
        ("应该", "should", "should"),
        ("可以", "can", "can"),
        ("不应该", "should not", "should not"),
        ("不想", "do not want to", "does not want to"),
        ("需要", "need to", "needs to"),
        ("不用", "do not have to", "does not have to"),
    )
)

# --- Places of the world --------------------------------------------------------------------------

CITIES = _plain("""
    北京 Beijing; 上海 Shanghai; 广州 Guangzhou; 深圳 Shenzhen; 成都 Chengdu; 西安 Xi'an
    南京 Nanjing
    杭州 Hangzhou; 香港 Hong_Kong; 东京 Tokyo; 首尔 Seoul; 巴黎 Paris; 伦敦 London; 纽约 New_York
    罗马 Rome; 柏林 Berlin; 莫斯科 Moscow; 悉尼 Sydney; 曼谷 Bangkok; 开罗 Cairo""")
COUNTRIES = _plain("""
    中国 China; 日本 Japan; 韩国 South_Korea; 法国 France; 英国 Britain; 美国 the_United_States
    德国 Germany; 意大利 Italy; 西班牙 Spain; 俄罗斯 Russia; 印度 India; 巴西 Brazil; 加拿大 Canada
    澳大利亚 Australia; 泰国 Thailand; 埃及 Egypt; 墨西哥 Mexico; 越南 Vietnam""")
LANDS = CITIES + COUNTRIES
ROUTES = tuple(join(a, b, "other", "other") for a in CITIES for b in CITIES if a is not b)
REGIONS = _nouns("个 省 province; 个 城市 city; 个 地区 region")
TONGUES = tuple(join(a, b, "other", "other") for a in LANGUAGES for b in LANGUAGES if a is not b)
HOLDINGS = tuple(
    join(Word({"": zh}, {"": en}), _noun(*noun))
    for zh, en, *noun in (
        ("这个图书馆", "this library", "本", "书", "book"),
        ("这所大学", "this university", "名", "学生", "student"),
        ("这家工厂", "this factory", "名", "工人", "worker"),
        ("这家公司", "this company", "名", "员工", "employee"),
        ("这个体育场", "this stadium", "个", "座位", "seat"),
        ("这个博物馆", "this museum", "件", "展品", "exhibit"),
        ("这个农场", "this farm", "只", "羊", "sheep"),
        ("这个俱乐部", "this club", "名", "会员", "member"),
    )
)
TRANSPORT = _plain("""
    坐公共汽车 by_bus; 坐地铁 by_subway; 坐出租车 by_taxi; 骑自行车 by_bicycle; 开车 by_car
    走路 on_foot""")
CARRIERS = _plain("火车 train; 飞机 plane; 大巴 bus")

# --- Times ----------------------------------------------------------------------------------------

_DAYS = _rows("一 Monday; 二 Tuesday; 三 Wednesday; 四 Thursday; 五 Friday; 六 Saturday; 日 Sunday")


def _weekdays(zh: str, en: str) -> Table:
    return tuple(Word({"": f"{zh}星期{d}"}, {"": f"{en} {day}"}) for d, day in _DAYS)


RECENT = _plain("""
    昨天 yesterday; 前天 the_day_before_yesterday; 昨天晚上 last_night; 今天早上 this_morning
    上个周末 last_weekend""") + _weekdays("上个", "last")
LONG_PAST = _plain("去年 last_year; 前年 the_year_before_last; 上个月 last_month")
DAY_AHEAD = _plain("明天 tomorrow; 后天 the_day_after_tomorrow") + _weekdays("下个", "next")
FUTURE = DAY_AHEAD + _plain("""
    今天晚上 tonight; 明天早上 tomorrow_morning; 这个周末 this_weekend""")
DAILY = _plain("每天 every_day; 每个周末 every_weekend") + _weekdays("每个", "every")
HABIT = DAILY + _plain("每天早上 every_morning; 每天晚上 every_evening")
OFTEN = _plain("常常 often; 总是 always; 有时候 sometimes; 很少 rarely; 从来不 never; 一般 usually")
JUST_NOW = _plain("昨天 yesterday; 昨天晚上 last_night; 今天早上 this_morning; 刚才 just_now")
NEXT_MEAL = _plain("""
    明天 tomorrow; 今天晚上 tonight; 明天早上 tomorrow_morning; 等一会儿 in_a_while""")
SOON = _plain("""
    现在 now; 马上 right_away; 今天晚上 tonight; 明天 tomorrow; 明天早上 tomorrow_morning""")
MEALS = _plain("吃完早饭 breakfast; 吃完午饭 lunch; 吃完晚饭 dinner; 下班 work; 下课 class")
OCCASIONS = _plain("""
    会议 meeting; 考试 exam; 比赛 game; 音乐会 concert; 展览 exhibition; 电影节 film_festival
    音乐节 music_festival; 展销会 trade_fair; 培训 training_course; 工程 project""")
MONTHS = _plain("""
    一月 January; 二月 February; 三月 March; 四月 April; 五月 May; 六月 June; 七月 July
    八月 August; 九月 September; 十月 October; 十一月 November; 十二月 December""")

# --- Numerals -------------------------------------------------------------------------------------


def _numbers(values: list[int]) -> Table:
    """Returns numbers in words; ``of`` is the form before a Chinese measure word: 二, 两本书."""
    return tuple(
        Word(
            {"": zh_number(n), "of": "两" if n == 2 else zh_number(n)},
            {"": en_number(n), "are": "is" if n == 1 else "are"},
        )
        for n in values
    )


def _ordinals(values: range) -> Table:
    return tuple(Word({"": zh_number(n)}, {"": en_ordinal(n)}) for n in values)


def _digits(values: range) -> Table:
    return tuple(Word({"": str(n)}, {"": str(n)}) for n in values)


def _clock() -> Table:
    """Returns times of day: 八点半 / *half past eight*, 八点三刻 / *a quarter to nine*."""
    rows = []
    for hour in range(1, 13):
        zh, en, following = zh_number(hour), en_number(hour), en_number(hour % 12 + 1)
        zh = "两" if hour == 2 else zh
        rows += [
            (f"{zh}点", f"{en} o'clock"),
            (f"{zh}点一刻", f"a quarter past {en}"),
            (f"{zh}点半", f"half past {en}"),
            (f"{zh}点三刻", f"a quarter to {following}"),
            (f"{zh}点十分", f"ten past {en}"),
            (f"{zh}点五十分", f"ten to {following}"),
        ]
    return tuple(Word({"": zh}, {"": en}) for zh, en in rows)


def _scaled(low: int, high: int, unit: int) -> list[int]:
    return [n * unit for n in range(low, high)]


NUMERALS: dict[str, Table] = {
    "trio": _numbers([1, 2, 3]),
    "few": _numbers([*range(1, 7)]),
    "many": _numbers([*range(2, 11), 12, 15, 20]),
    "dozens": _numbers([*range(11, 100)]),
    "age": _numbers([*range(25, 60)]),
    "floor": _ordinals(range(2, 31)),
    "nth": _ordinals(range(1, 11)),
    "tens": _numbers([*range(5, 100)]),
    "scores": _numbers(_scaled(10, 100, 10)),
    "hundreds": _numbers(_scaled(11, 100, 100)),
    "thousands": _numbers(_scaled(2, 100, 1_000)),
    "myriads": _numbers(_scaled(10, 100, 1_000) + _scaled(10, 100, 10_000)),
    "millions": _numbers(_scaled(10, 100, 100_000) + _scaled(10, 100, 1_000_000)),
    "nation": _numbers(_scaled(10, 100, 10_000_000) + _scaled(10, 15, 100_000_000)),
    "billions": _numbers(_scaled(10, 100, 10_000_000) + _scaled(10, 100, 100_000_000)),
    "year": _digits(range(1980, 2025)),
    "birth": _digits(range(1955, 2001)),
    "day": tuple(Word({"": zh_number(n)}, {"": str(n)}) for n in range(1, 29)),
    "cm": _numbers([*range(150, 196)]),
    "clock": _clock(),
}

# --- The tables by the names that frames use ------------------------------------------------------

CHEAP = READING + CLOTHES + TABLEWARE + POCKET + HANDY
DEAR = MACHINES + FURNITURE + VEHICLES[1:2]
ESTATE = _nouns("""
    套 房子 house; 套 公寓 apartment; 座 别墅 villa; 艘 游艇 yacht; 幅 画 painting
    家 饭馆 restaurant
    家 商店 store; 个 农场 farm; 架 直升机 helicopter; 颗 钻石 diamond""")
GIFTS = CLOTHES + POCKET + HANDY + READING
TOPS = _nouns("""
    件 衬衫 shirt; 件 毛衣 sweater; 件 大衣 coat; 件 夹克 jacket; 件 T恤 T-shirt; 件 西装 suit""")
TINTED = tuple(
    _noun(noun.zh["m"], f"{color.zh['']}色的{noun.zh['']}", f"{color.en['']} {noun.en['']}")
    for noun in CLOTHES + POCKET + VEHICLES + TABLEWARE + SEATS
    for color in COLORS
    if " of " not in noun.en[""]
)
BELONGINGS = _plain("""
    手机 phone; 钱包 wallet; 雨伞 umbrella; 帽子 hat; 手表 watch; 护照 passport
    电脑 computer; 相机 camera; 钢笔 pen; 词典 dictionary; 吉他 guitar""")
BUILDINGS = tuple(place for place in PLACES if place.en[""] != "home")
_OPEN_AIR = ("海边", "广场", "操场", "游泳池", "花园")
_PRIVATE = ("厨房", "宿舍", "办公室")
_LEISURE = ("公园", "图书馆", "饭馆", "咖啡馆", "商场", "体育馆", "海边", "书店", "广场", "操场")
ROOMS = tuple(place for place in BUILDINGS if place.zh[""] not in _OPEN_AIR + _PRIVATE)
WALKS = tuple(join(a, b, "other", "other") for a in BUILDINGS for b in BUILDINGS if a is not b)
_GO_OUT = [place.zh["to"] for place in PLACES if place.zh[""] in _LEISURE]
OUTINGS = tuple(scene for scene in SCENES if scene.zh["to"].startswith(tuple(_GO_OUT)))
_FLAWED = ("贵", "旧", "重", "脏", "慢", "难", "无聊")
FLAWS = tuple(look for look in LOOKS if look.zh["adj"] in _FLAWED)
_HARM = ("break", "damage", "lose", "burn", "hide")
HELPFUL = tuple(change for change in CHANGES if change.en[""] not in _HARM)
UNWANTED = tuple(change for change in CHANGES if change.en[""] not in ("repair", "wash"))

TABLES: dict[str, Table] = NUMERALS | {
    "who": WHO,
    "single": SINGLES,
    "named": OTHERS,
    "adult": ADULTS,
    "asked": ASKED,
    "asked_one": ASKED_ONE,
    "known": KNOWN,
    "couple": COUPLES,
    "peers": PEERS,
    "job": JOBS,
    "people": CROWDS,
    "goods": GOODS,
    "clothes": CLOTHES,
    "cheap": CHEAP,
    "dear": DEAR,
    "estate": ESTATE,
    "gift": GIFTS,
    "carried": CARRIED,
    "belonging": BELONGINGS,
    "tinted": TINTED,
    "top": TOPS,
    "color": COLORS,
    "drink": DRINKS,
    "dish": DISHES,
    "cuisine": CUISINE,
    "taste": LIKES,
    "kind": KINDS,
    "language": LANGUAGES,
    "tongues": TONGUES,
    "trait": TRAITS,
    "virtues": VIRTUES,
    "feeling": FEELINGS,
    "degree": DEGREES,
    "margin": MARGINS,
    "flaw": FLAWS,
    "look": LOOKS,
    "goods_look": GOODS_LOOKS,
    "act": ACTS,
    "snack": SNACKS,
    "event": EVENTS,
    "change": CHANGES,
    "helpful": HELPFUL,
    "unwanted": UNWANTED,
    "modal": MODALS,
    "scene": SCENES,
    "outing": OUTINGS,
    "deed": DEEDS,
    "skill": SKILLS,
    "routine": ROUTINE,
    "chore": CHORES,
    "pastime": PASTIMES,
    "banned": BANNED,
    "making": OBJECTLESS,
    "sky": SKY,
    "weather": WEATHER,
    "spot": SPOTS,
    "place": PLACES,
    "building": BUILDINGS,
    "room": ROOMS,
    "walk": WALKS,
    "city": CITIES,
    "land": LANDS,
    "route": ROUTES,
    "region": REGIONS,
    "holding": HOLDINGS,
    "transport": TRANSPORT,
    "carrier": CARRIERS,
    "recent": RECENT,
    "long_past": LONG_PAST,
    "future": FUTURE,
    "day_ahead": DAY_AHEAD,
    "daily": DAILY,
    "habit": HABIT,
    "often": OFTEN,
    "just_now": JUST_NOW,
    "next_meal": NEXT_MEAL,
    "soon": SOON,
    "meal": MEALS,
    "occasion": OCCASIONS,
    "month": MONTHS,
}
