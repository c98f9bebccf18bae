import logging,sys,re
from collections import Counter
from tests.charging.simulate import run
logging.disable(50)
c=Counter()
for s in range(30):
    r=run(s)
    for l in r.story:
        m=re.search(r"to (\w+): (\d+ ?\w*)",l)
        if m: c[m.group(2).split(" complete")[0]]+=1
        else: c[re.sub(r"[A-Z]-\d+|s0\d+|\d+$","",l[14:])[:40]]+=1
for k,v in c.most_common(60): print(v,k)
