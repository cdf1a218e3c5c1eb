from fl_mobile.codecs.ecsq.codec import Ecsq, parse_ecsq
