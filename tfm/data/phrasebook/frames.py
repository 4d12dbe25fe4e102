"""The sentence frames of the phrasebook: a name and a Chinese template, then the English template.

``grammar`` explains the template language; comments start with "#".
"""

FRAMES = """
# 了, 没, 过, 正在, 会, 打算: time before the verb in Chinese, mostly at the end in English
did                {who}{recent}{act}了{few*act}。
                   {who} {act.past} {few*act} {recent}.
happened           {who}{recent}{event}了{trio*event}。
                   {who} {event.past} {trio*event} {recent}.
did_not            {who}{recent}没{act}{act.that}。
                   {who} did not {act} {act.that} {recent}.
did_already        {who}已经{act}了{few*act}。
                   {who} {who.have} already {act.done} {few*act}.
did_not_yet        {who}还没{act}{act.that}。
                   {who} {who.have} not {act.done} {act.that} yet.
did_ask            {asked}{recent}{act}{act.that}了吗？
                   Did {asked} {act} {act.that} {recent}?
plans              {who}打算{future}{act}{few*act}。
                   {who} {plan@who} to {act} {few*act} {future}.
will               {who}{future}会{act}{act.these}。
                   {who} will {act} {act.these} {future}.
will_not           {who}{future}不会{act}{act.those}。
                   {who} will not {act} {act.those} {future}.
will_ask           {asked}{future}会{act}{act.this}吗？
                   Will {asked} {act} {act.this} {future}?
ate                {who}{just_now}{snack}了{few*snack}。
                   {who} {snack.past} {few*snack} {just_now}.
did_not_eat        {who}{just_now}没{snack}{snack.that}。
                   {who} did not {snack} {snack.that} {just_now}.
ate_ask            {asked}{just_now}{snack}{snack.that}了吗？
                   Did {asked} {snack} {snack.that} {just_now}?
will_eat           {who}{next_meal}会{snack}{few*snack}。
                   {who} will {snack} {few*snack} {next_meal}.
# 在: place before the verb
was_there          {who}{recent}{scene}。
                   {who} {scene.past} {recent}.
is_there           {who}{scene.now}。
                   {who} {who.be} {scene.ing}.
is_there_ask       {asked}现在{scene}吗？
                   {asked.be} {asked} {scene.ing} now?
was_there_at       {who}昨天{clock}{scene.now}。
                   {who} {who.was} {scene.ing} at {clock} yesterday.
habit              {who}{habit}都{scene}。
                   {who} {scene@who} {habit}.
often              {who}{often}{scene}。
                   {who} {often} {scene@who}.
modal              {who}{modal}{scene}。
                   {who} {modal@who} {scene}.
likes_to           {who}喜欢{scene}。
                   {who} {like@who} to {scene}.
goes_soon          {who}{future}要{scene.to}。
                   {who} {who.be} going {scene.to} {future}.
went               {who}{recent}{scene.to}了。
                   {who} went {scene.to} {recent}.
lets               我们{future}一起{outing.to}吧。
                   Let's go {outing.to} together {future}.
about_to           {who}快要{scene.to}了。
                   {who} {who.be} about to go {scene.to}.
after_meal         {who}{daily}{meal}以后都{scene.to}。
                   {who} {go@who} {scene.to} after {meal} {daily}.
waited             {who}{building.at}等了{few.of}个小时。
                   {who} waited {building.at} for {few*hour}.
please_do_not      请不要{building.at}{banned}。
                   Please do not {banned} {building.at}.
# Skills and tastes
can                {who}会{skill}。
                   {who} can {skill}.
cannot             {who}不会{skill}。
                   {who} cannot {skill}.
can_ask            {asked}会{skill}吗？
                   Can {asked} {skill}?
speaks             {who}会说{tongues}，但是不会说{tongues.other}。
                   {who} can speak {tongues} but not {tongues.other}.
likes              {who}喜欢{taste}。
                   {who} {like@who} {taste}.
dislikes           {who}不喜欢{taste}。
                   {who} {who.do} not like {taste}.
likes_ask          {asked}喜欢{taste}吗？
                   {asked.do} {asked} like {taste}?
why_not_like       {asked}为什么不喜欢{taste}？
                   Why {asked.do}n't {asked} like {taste}?
favorite           {asked}最喜欢的{kind}是什么？
                   What is {asked.his} favorite {kind}?
tea_or_noodles     你想要{drink.one}还是{dish.one}？
                   Would you like {drink.one} or {dish.one}?
# Experience: 过
been               {who}去过{land}。
                   {who} {who.have} been to {land}.
never_been         {who}从来没去过{land}。
                   {who} {who.have} never been to {land}.
been_ask           {asked}去过{land}吗？
                   {asked.have} {asked} ever been to {land}?
been_times         {who}去过{many.of}次{land}。
                   {who} {who.have} been to {land} {many*time}.
nth_visit          这是{who}第{nth}次去{land}。
                   This is {who.his} {nth} visit to {land}.
eaten              {asked}吃过{cuisine}吗？
                   {asked.have} {asked} ever eaten {cuisine}?
never_eaten        {who}从来没吃过{cuisine}。
                   {who} {who.have} never eaten {cuisine}.
# 把
ba                 {who}把{change.that}{change}了。
                   {who} {change.past} {change.that}.
ba_not             {who}没把{change.that}{change}。
                   {who} did not {change} {change.that}.
ba_ask             {asked}把{change.this}{change}了吗？
                   Did {asked} {change} {change.this}?
ba_please          请{soon}把{helpful.that}{helpful}。
                   Please {helpful} {helpful.that} {soon}.
ba_do_not          别把{unwanted.this}{unwanted}。
                   Do not {unwanted} {unwanted.this}.
ba_who             谁把{change.this}{change}了？
                   Who {change.past} {change.this}?
ba_already         {who}已经把{change.these}{change}了。
                   {who} {who.have} already {change.done} {change.these}.
ba_put             {who}把{carried.that}放在{spot}了。
                   {who} put {carried.that} {spot}.
ba_left            {who}{recent}把{carried.that}忘在{building}了。
                   {who} left {carried.that} {building.at} {recent}.
ba_returned        {couple}把{carried.that}还给{couple.other}了。
                   {couple} returned {carried.that} to {couple.other}.
# 被
bei                {change.that}被{who}{change}了。
                   {change.that} was {change.done} by {who.him}.
bei_all            {change.those}都被{known}{change}了。
                   {change.those} were all {change.done} by {known.him}.
bei_not            {change.this}没有被{known}{change}。
                   {change.this} was not {change.done} by {known.him}.
bei_when           {change.this}{recent}被{change}了。
                   {change.this} was {change.done} {recent}.
# Giving and meeting
gave               {couple}{recent}送给了{couple.other}{gift.one}。
                   {couple} gave {couple.other} {gift.one} {recent}.
will_buy_for       {couple}{future}会给{couple.other}买{gift.one}。
                   {couple} will buy {gift.one} for {couple.other} {future}.
called             {couple}{recent}给{couple.other}打了电话。
                   {couple} called {couple.other} {recent}.
go_with            {couple}想跟{couple.other}一起{building.to}。
                   {couple} {want@couple} to go {building.to} with {couple.other}.
# 比, 没有…那么, 跟…一样, 最, 越来越
than_one           {look.this}比{look.that}{look.adj}{margin}。
                   {look.this} is {margin}{look.more} than that one.
than_person        {couple}比{couple.other}{trait}{margin}。
                   {couple} {couple.be} {margin}{trait.more} than {couple.other}.
not_as             {couple}没有{couple.other}那么{trait}。
                   {couple} {couple.be} not as {trait} as {couple.other}.
same_as            {couple}跟{couple.other}一样{trait}。
                   {couple} {couple.be} as {trait} as {couple.other}.
older_by           {peers}比{peers.other}大{many.of}岁。
                   {peers} {peers.be} {many*year} older than {peers.other}.
not_as_one         {look.this}没有{look.that}那么{look.adj}。
                   {look.this} is not as {look.adj} as that one.
which_most         哪{look.m}{look.noun}最{look.adj}？
                   Which {look.noun} is the {look.most}?
more_and_more      {who}越来越{trait}了。
                   {who} {who.be} getting {trait.rising}.
# Adjectives
very               {look.that}{degree}{look.adj}。
                   {look.that} is {degree} {look.adj}.
all_very           {look.these}都很{look.adj}。
                   {look.these} are all very {look.adj}.
adjective_ask      {look.that}{look.adj}吗？
                   Is {look.that} {look.adj}?
although           虽然{flaw.this}很{flaw.adj}，但是{who}还是很喜欢。
                   Although {flaw.this} is very {flaw.adj}, {who} still {like@who} it.
both               {who}又{virtues}又{virtues.other}。
                   {who} {who.be} both {virtues} and {virtues.other}.
feels              {who}今天{degree}{feeling}。
                   {who} {who.be} {degree} {feeling} today.
felt               {who}昨天{degree}{feeling}。
                   {who} {who.was} {degree} {feeling} yesterday.
why_feel           {asked}今天为什么这么{feeling}？
                   Why {asked.be} {asked} so {feeling} today?
# Relative clauses: before the noun with 的, after it with that
bought_thing       {known}{recent}买的{goods_look.that}{degree}{goods_look.adj}。
                   The {goods_look.noun} that {known} bought {recent} is {degree} {goods_look.adj}.
this_is_the        这就是{known}{recent}{event}的{event.that}。
                   This is the {event.noun} that {known} {event.past} {recent}.
known_person       {known}认识的{job.that}会说{language}。
                   The {job} that {known} {know@known} can speak {language}.
person_there       {scene}的那个人是{named}。
                   The person who is {scene.ing} is {named}.
person_in          穿{color}色{top}的那个人是{named}。
                   The person in the {color} {top} is {named}.
# Jobs and possessions
job                {single}是{job}。
                   {single} {single.be} {job.one}.
job_ask            {asked_one}是{job}吗？
                   {asked_one.be} {asked_one} {job.one}?
job_wish           {single}想当{job}。
                   {single} {want@single} to become {job.one}.
job_before         {single}以前是{job}。
                   {single} used to be {job.one}.
job_years          {single}当了{many.of}年{job}了。
                   {single} {single.have} been {job.one} for {many*year}.
has                {who}有{few*tinted}。
                   {who} {who.have} {few*tinted}.
has_no             {who}没有{goods}。
                   {who} {who.do} not have {goods.one}.
wants_to_buy       {who}想买{tinted.one}。
                   {who} {want@who} to buy {tinted.one}.
how_many           {asked}有几{goods.m}{goods}？
                   How many {goods.plural} {asked.do} {asked} have?
whose              {goods.this}是谁的？
                   Whose {goods} is this?
is_mine            {goods.that}是{who.his}。
                   {goods.that} is {who.mine}.
is_yours           {goods.this}是{asked.his}吗？
                   Is {goods.this} {asked.mine}?
is_where           {who.his}{belonging}在{spot}。
                   {who.his} {belonging} is {spot}.
where_is           {asked.his}{belonging}在哪里？
                   Where is {asked.his} {belonging}?
there_is           {spot}有{few*carried}。
                   There {few.are} {few*carried} {spot}.
there_is_no        {spot}没有{carried}。
                   There are no {carried.plural} {spot}.
there_how_many     {spot}有几{carried.m}{carried}？
                   How many {carried.plural} are there {spot}?
crowd              {room}里有{dozens*people}。
                   There are {dozens*people} {room.at}.
# Question words stay where the answer goes; English moves them to the front
what_did           {asked}{recent}{making}了什么？
                   What did {asked} {making} {recent}?
what_want          {asked}{future}想{making}什么？
                   What {asked.do} {asked} want to {making} {future}?
where_bought       {asked}是在哪里买的{goods.this}？
                   Where did {asked} buy {goods.this}?
where_habit        {asked}{daily}在哪里{deed}？
                   Where {asked.do} {asked} {deed} {daily}?
where_happened     {asked}{recent}在哪里{event}了{event.that}？
                   Where did {asked} {event} {event.that} {recent}?
when_went          {asked}是什么时候去{land}的？
                   When did {asked} go to {land}?
when_will_go       {asked}要什么时候去{land}？
                   When {asked.be} {asked} going to {land}?
when_plan          {asked}打算什么时候{scene.to}？
                   When {asked.do} {asked} plan to go {scene.to}?
why_not_go         {asked}{recent}为什么没{scene.to}？
                   Why didn't {asked} go {scene.to} {recent}?
how_go             {asked}{daily}怎么{building.to}？
                   How {asked.do} {asked} get {building.to} {daily}?
how_long           {asked}在{city}住了多久了？
                   How long {asked.have} {asked} lived in {city}?
how_get            请问，从{walk}到{walk.other}怎么走？
                   Excuse me, how do I get from {walk} to {walk.other}?
what_time          {asked}{daily}几点{routine}？
                   What time {asked.do} {asked} {routine} {daily}?
how_much           {few*cheap}多少钱？
                   How much {few.are} {few*cheap}?
# Two clauses
if_rain            如果{day_ahead}{sky}，{who}就不{scene.to}了。
                   If it {sky.s} {day_ahead}, {who} will not go {scene.to}.
because_rain       因为{recent}{sky}了，所以{who}没{place.to}。
                   Because it {sky.past} {recent}, {who} did not go {place.to}.
while              {who}{often}一边{pastime}一边{chore}。
                   {who} {often} {pastime@who} while {chore.ing}.
first_then         {who}{day_ahead}会先{chore}再{pastime}。
                   {who} will {chore} first and then {pastime} {day_ahead}.
# Weather
weather            {land}今天{degree}{weather}。
                   It is {degree} {weather} in {land} today.
rained             {land}{recent}{sky}了。
                   It {sky.past} in {land} {recent}.
will_rain          {land}{future}会{sky}。
                   It will {sky} in {land} {future}.
will_rain_ask      {land}{future}会{sky}吗？
                   Will it {sky} in {land} {future}?
# Travel, clock times, dates, years, ages
goes_by            {who}{daily}都{transport}{building.to}。
                   {who} {go@who} {building.to} {transport} {daily}.
gets_up            {who}{daily}{clock}{routine}。
                   {who} {routine@who} at {clock} {daily}.
arrives            {carrier}{day_ahead}{clock}到{city}。
                   The {carrier} will arrive in {city} at {clock} {day_ahead}.
leaves             去{city}的{carrier}{clock}出发。
                   The {carrier} to {city} leaves at {clock}.
birthday           {single.his}生日是{month}{day}号。
                   {single.his} birthday is {month} {day}.
born               {adult}是{birth}年{month}{day}号出生的。
                   {adult} {adult.was} born on {month} {day}, {birth}.
starts             {occasion}{month}{day}号开始。
                   The {occasion} starts on {month} {day}.
moved              {who}{year}年搬到了{city}。
                   {who} moved to {city} in {year}.
studied_since      {who}{year}年开始学{language}。
                   {who} started studying {language} in {year}.
studied_for        {who}学{language}学了{many.of}年了。
                   {who} {who.have} been studying {language} for {many*year}.
lived_for          {who}在{city}住了{many.of}年了。
                   {who} {who.have} lived in {city} for {many*year}.
age                {adult}今年{age}岁。
                   {adult} {adult.be} {age} years old this year.
height             {adult}身高{cm}厘米。
                   {adult} {adult.be} {cm} centimeters tall.
floor              {who}住在{floor}楼。
                   {who} {live@who} on the {floor} floor.
# Money and large numbers: 万 and 亿 against thousand, million, billion
price              {cheap.this}{tens}块钱。
                   {cheap.this} costs {tens} yuan.
price_more         {clothes.that}卖{scores}块钱。
                   {clothes.that} sells for {scores} yuan.
sells_for          {dear.that}卖{hundreds}块钱。
                   {dear.that} sells for {hundreds} yuan.
spent              {who}{recent}花了{hundreds}块钱买了{dear.one}。
                   {who} spent {hundreds} yuan on {dear.one} {recent}.
ticket             从{route}到{route.other}的机票要{hundreds}块钱。
                   A plane ticket from {route} to {route.other} costs {hundreds} yuan.
earns              {who}每个月赚{thousands}块钱。
                   {who} {earn@who} {thousands} yuan a month.
worth_thousands    {estate.this}值{myriads}元。
                   {estate.this} is worth {myriads} yuan.
worth_millions     {estate.that}值{millions}元。
                   {estate.that} is worth {millions} yuan.
holds              {holding}有{thousands*holding}。
                   {holding} has {thousands*holding}.
sold               这家公司{long_past}卖了{myriads*dear}。
                   This company sold {myriads*dear} {long_past}.
tourists           {year}年，{city}接待了{millions}名游客。
                   In {year}, {city} received {millions} tourists.
population         {year}年，{region.this}有{millions}人口。
                   In {year}, {region.this} had a population of {millions}.
population_now     {region.that}现在有{millions}人口。
                   {region.that} now has a population of {millions}.
nation_then        {year}年，这个国家有{nation}人口。
                   In {year}, this country had a population of {nation}.
invested           他们{long_past}在{city}投资了{billions}元。
                   They invested {billions} yuan in {city} {long_past}.
"""
