------------------------------ MODULE Commit ------------------------------
\* The save of one cut by several members, each with a disk of its own (flows.engine.saves, flows.engine.meeting).
\*
\* At a cut each member writes its shards' files; once they are durable and its sinks have acknowledged all that lies
\* before the cut, it renames its manifest into place. The save counts when every member's manifest is there. Each tells
\* the others, under the number of the start, which cuts it has. A member removes files only below the greatest cut that
\* it knows to be whole everywhere. A crash ends all; they meet again at the greatest cut that all of them have, or are
\* refused. The beginning is a cut too, which needs no file.
EXTENDS Naturals, FiniteSets
CONSTANTS M, K,         \* members, cuts
          SYNC,         \* a manifest is renamed when its files are durable
          ACKED,        \* and when the sinks have acknowledged
          ALL,          \* files go when every member's manifest of a later cut is whole, not this member's alone
          LIST,         \* a member tells all cuts that it has, not the greatest alone
          START,        \* what was told in an earlier start is nobody's word
          BEGIN,        \* the beginning is a cut that all have until they know another one
          MEET          \* a start takes the greatest cut that all have, not each member its own
VARIABLES cut, files, durable, acked, manifest, told, from, refused, lostOutput, mirrored
vars == <<cut, files, durable, acked, manifest, told, from, refused, lostOutput, mirrored>>

Ms == 1..M
Max(set) == IF set = {} THEN 0 ELSE CHOOSE m \in set : \A x \in set : m >= x
\* Cut 0 is the beginning: it needs no file.
Init == /\ cut = [m \in Ms |-> 0] /\ files = [m \in Ms |-> {}] /\ durable = [m \in Ms |-> {}] /\ acked = [m \in Ms |-> 0]
        /\ manifest = [m \in Ms |-> IF BEGIN THEN {0} ELSE {}] /\ told = [m \in Ms |-> [o \in Ms |-> {}]]
        /\ from = [m \in Ms |-> 0] /\ refused = FALSE /\ lostOutput = FALSE /\ mirrored = 0
Good(m, k) == k \in manifest[m] /\ (k = 0 \/ k \in files[m])
Everywhere == {k \in 0..K : \A m \in Ms : Good(m, k)}

\* A cut goes through all members; none is more than two saves ahead of its own durable one.
Cut(m) == /\ ~refused /\ cut[m] < K /\ cut[m] < Max(manifest[m]) + 2 /\ \A o \in Ms : cut[m] <= cut[o] + 1
          /\ cut' = [cut EXCEPT ![m] = @ + 1] /\ files' = [files EXCEPT ![m] = @ \cup {cut[m] + 1}]
          /\ UNCHANGED <<durable, acked, manifest, told, from, refused, lostOutput, mirrored>>
Sync(m) == \E k \in files[m] \ durable[m] : /\ durable' = [durable EXCEPT ![m] = @ \cup {k}]
                                            /\ UNCHANGED <<cut, files, acked, manifest, told, from, refused, lostOutput, mirrored>>
Ack(m) == /\ acked[m] < cut[m] /\ acked' = [acked EXCEPT ![m] = @ + 1]
          /\ UNCHANGED <<cut, files, durable, manifest, told, from, refused, lostOutput, mirrored>>
Rename(m) == \E k \in files[m] : /\ k > Max(manifest[m]) /\ (SYNC => k \in durable[m]) /\ (ACKED => acked[m] >= k)
                                 /\ manifest' = [manifest EXCEPT ![m] = @ \cup {k}]
                                 /\ UNCHANGED <<cut, files, durable, acked, told, from, refused, lostOutput, mirrored>>
Tell(m, o) == /\ m # o /\ told[o][m] # manifest[m] /\ told' = [told EXCEPT ![o][m] = manifest[m]]
              /\ UNCHANGED <<cut, files, durable, acked, manifest, from, refused, lostOutput, mirrored>>
Least(set) == CHOOSE m \in set : \A x \in set : m <= x
Known(m) == IF LIST THEN Max({k \in manifest[m] : \A o \in Ms \ {m} : k \in told[m][o]})
            ELSE Least({Max(told[m][o]) : o \in Ms \ {m}} \cup {Max(manifest[m])})
Below(m) == IF ALL THEN Known(m) ELSE Max(manifest[m])
Prune(m) == /\ \E k \in manifest[m] : k < Below(m)
            /\ manifest' = [manifest EXCEPT ![m] = {k \in @ : k >= Below(m)}]
            /\ files' = [files EXCEPT ![m] = {k \in @ : k >= Below(m)}]
            /\ durable' = [durable EXCEPT ![m] = {k \in @ : k >= Below(m)}]
            /\ mirrored' = Max({mirrored, Below(m)})   \* Kafka's group offsets follow committed cuts alone
            /\ UNCHANGED <<cut, acked, told, from, refused, lostOutput>>
\* Power goes everywhere: what was not synced may be gone. All start again.
Crash == /\ ~refused
         /\ \E gone \in SUBSET UNION {{<<m, k>> : k \in files[m] \ durable[m]} : m \in Ms} :
              LET left == [m \in Ms |-> {k \in files[m] : <<m, k>> \notin gone}]
                  good == [m \in Ms |-> {k \in manifest[m] : k = 0 \/ k \in left[m]}]
                  common == {k \in 0..K : \A m \in Ms : k \in good[m]}
                  start == [m \in Ms |-> IF MEET THEN (IF common = {} THEN 0 ELSE Max(common))
                                         ELSE IF good[m] = {} THEN 0 ELSE Max(good[m])]
              IN /\ refused' = ((common = {} /\ \E m \in Ms : good[m] # {}) \/ \E m, o \in Ms : start[m] # start[o])
                 /\ from' = start /\ cut' = start
                 /\ files' = [m \in Ms |-> {k \in left[m] : k <= start[m]}]
                 /\ durable' = [m \in Ms |-> {k \in left[m] : k <= start[m]}]
                 /\ manifest' = [m \in Ms |-> IF {k \in good[m] : k <= start[m]} = {} THEN {0} ELSE {k \in good[m] : k <= start[m]}]
                 \* What a sink had not acknowledged before the cut is lost for ever: nobody sends it again.
                 /\ lostOutput' = (lostOutput \/ \E m \in Ms : acked[m] < start[m])
                 /\ acked' = start
                 /\ told' = IF START THEN [m \in Ms |-> [o \in Ms |-> {}]] ELSE told
                 /\ UNCHANGED mirrored
Next == Crash \/ \E m \in Ms : Cut(m) \/ Sync(m) \/ Ack(m) \/ Rename(m) \/ Prune(m) \/ \E o \in Ms : Tell(m, o)
Spec == Init /\ [][Next]_vars

\* There is always a cut from which all members can start, and nothing that left Kafka's offsets behind is needed again.
AlwaysACommonCut == ~refused /\ ((\E m \in Ms : manifest[m] # {}) => Everywhere # {} /\ Max(Everywhere) >= mirrored)
NoOutputIsLost == ~lostOutput
=============================================================================
