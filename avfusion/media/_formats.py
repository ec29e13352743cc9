"""The formats that may be read: self-contained ones.

Excluded are formats that refer to other files or addresses (hls, concat, sdp, mlv, vobsub, image2 with file name
patterns, svg), devices, text rendered as video, and headerless samples. A format that a new FFmpeg adds is excluded
until it has been reviewed.
"""

_CONTAINERS = (
    "mov matroska webm avi flv live_flv kux mpegts mpeg asf asf_o ogg nut mxf gxf rm nsv nuv wtv swf dv ivf dhav lxf "
    "mpjpeg pva pmp thp ty film_cpk vivo smjpeg yuv4mpegpipe avs2 avs3 av1 obu iamf evc apv h261 h263 h264 hevc vvc "
    "m4v mjpeg mjpeg_2000 mpegvideo mpegps ingenient cavsvideo dirac dnxhd vc1 vc1test ipu lmlm4 mtv mv mvi mm moflex "
    "mods flic anm bethsoftvid bfi bmv c93 cdg cdxl cine dsicin dxa ea ea_cdata filmstrip frm gdv hnm idcin iff ifv "
    "ipmovie iss iv8 jv luodat mgsts nc paf psxstr pdv qcp r3d roq rpl rl2 sdr2 ser sga siff smk bink smush 3dostr 4xm "
    "argo_brp argo_cvg avr boa derf dfa dcstr tiertexseq tmv txd usm vividas vmd wc3movie wsvqa xmv yop"
)
_SOUND = (
    "wav w64 aiff au caf flac mp3 aac ac3 ac4 eac3 loas dts dtshd truehd mlp amr amrnb amrwb adx aea afc aa aax ape "
    "apc apm aptx aptx_hd argo_asf ast bfstm bit bonk brstm codec2 daud dsf dss epaf fsb fwse g722 g723_1 g726 g726le "
    "g728 g729 genh gsm hca hcom ilbc ircam act adp ads aix alp acm ace binka dfpwm kvag laf lc3 lvf mca mmf mpc mpc8 "
    "msf msp mtaf musx nistsphere nsp oma osq pp_bnk pvf qoa redspark rka rsd rso s337m sbc scd sdns sds sdx shn "
    "simbiosis_imx sln sol sox spdif svag svs tak tta vag voc vpk vqf wady wavarc wsaud wsd wv wve xa xmd xvag xwma"
)
_PICTURES = (
    "apng gif fits ico jpegxl_anim webp bmp_pipe cri_pipe dds_pipe dpx_pipe exr_pipe gem_pipe gif_pipe hdr_pipe "
    "j2k_pipe jpeg_pipe jpegls_pipe jpegxl_pipe jpegxs_pipe pam_pipe pbm_pipe pcx_pipe pfm_pipe pgm_pipe pgmyuv_pipe "
    "pgx_pipe phm_pipe photocd_pipe pictor_pipe png_pipe ppm_pipe psd_pipe qdraw_pipe qoi_pipe sgi_pipe sunrast_pipe "
    "tiff_pipe vbn_pipe webp_pipe xbm_pipe xpm_pipe xwd_pipe image2pipe"
)
_TEXTS = "srt ass webvtt"  # so that an error can name a file that has only subtitles

_DEVICES = (
    "alsa android_camera avfoundation bktr decklink dshow fbdev gdigrab iec61883 jack kmsgrab lavfi libcdio libdc1394 "
    "openal oss pulse sndio v4l2 video4linux2 vfwcap x11grab xcbgrab"
)

READ = ",".join(f"{_CONTAINERS} {_SOUND} {_PICTURES} {_TEXTS}".split())
DEVICES = frozenset(_DEVICES.split())

_PLAYLISTS = {
    b"#EXTM3U": "HLS playlist",
    b"ffconcat": "concat script",
    b"<MPD": "DASH manifest",
    b"<SmoothStreamingMedia": "Smooth Streaming manifest",
    b"[playlist]": "playlist",
    b"<asx": "playlist",
    b"RTSPtext": "playlist",
    b"v=0": "session description (SDP)",
    b"# VobSub": "VobSub index",
    b"MLVI": "MLV recording",
}


_DOCUMENTS = {
    b"%PDF": "a PDF",
    b"%!PS": "a PostScript file",
    b"PK\3\4": "a ZIP archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1f\x8b\x08": "a gzip archive",
    b"<!doctype": "a web page",
    b"<html": "a web page",
}


def document(head: bytes) -> str | None:
    """The name of the document type that a file with this beginning is, if FFmpeg would search it for embedded
    media.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for mark, kind in _DOCUMENTS.items() if text.startswith(mark.lower())), None)


def refusal(head: bytes) -> str | None:
    """Why a file with this beginning is refused, or None."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for mark, kind in _PLAYLISTS.items():
        if text.startswith(mark) or (mark[:1] == b"<" and mark.lower() in text[:1000].lower()):
            return f"is a {kind}: what refers to other files or addresses is not read"
    plain = bytes(byte for byte in range(256) if byte >= 32 or byte in b"\t\n\f\r\x1b")
    return "is a text file" if head and not head.translate(None, plain) else None
